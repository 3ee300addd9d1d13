"""Hooks hear of each move that a server makes, in order, and can do it no harm."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from time import monotonic

import pytest

from qml_nb import InvalidValue, Job, JobState, RetryPolicy
from qml_nb.server import hooks
from tests.server.faults import Faulty
from tests.server.waiting import full_house, in_state, run, until

Moves = defaultdict[str, list[str]]


@pytest.fixture(params=["plain", "async"])
def moves(request, registry) -> Moves:
    """The moves of each job as a hook hears of them, as "old new"."""
    moves: Moves = defaultdict(list)

    def note(job: Job, old: JobState, new: JobState) -> None:
        moves[job.id].append(f"{old} {new}")

    async def note_later(job: Job, old: JobState, new: JobState) -> None:
        await asyncio.sleep(0)
        note(job, old, new)

    registry.on_state_change(note if request.param == "plain" else note_later)
    return moves


async def test_it_hears_of_the_claim_and_of_what_the_run_came_to(storage, registry, serve, moves) -> None:
    registry.register("good", lambda: 1)
    registry.register("bad", lambda: 1 / 0)
    await serve(retry=RetryPolicy.fixed(0))
    good, bad, again = await run(storage, Job("good"), Job("bad"), Job("bad", max_retries=1))
    await until(lambda: len(moves[again.id]) == 4 and len(moves[bad.id]) == len(moves[good.id]) == 2)
    assert moves[good.id] == ["enqueued processing", "processing succeeded"]
    assert moves[bad.id] == ["enqueued processing", "processing failed"]
    assert moves[again.id] == [
        "enqueued processing",
        "processing awaiting_retry",
        "enqueued processing",
        "processing failed",
    ]


async def test_it_hears_of_each_of_many_jobs_before_the_server_has_stopped(storage, registry, serve, moves) -> None:
    registry.register("note", lambda: None)

    @registry.task
    async def note() -> None: ...

    server = await serve(worker_count=20, shutdown_timeout=5)
    jobs = await run(storage, *(Job("note") for _ in range(2_000)))
    await server.stop()
    assert {tuple(moves[job.id]) for job in jobs} == {("enqueued processing", "processing succeeded")}


async def test_it_hears_that_jobs_go_back(storage, registry, serve, moves) -> None:
    registry.register("hold", asyncio.Event().wait)
    jobs = [Job("hold") for _ in range(3)]
    await storage.enqueue_many(jobs)
    server = await serve(worker_count=1, fetch_batch_size=3, shutdown_timeout=0)
    await until(lambda: server.snapshot().busy)
    await server.stop()
    assert [moves[job.id] for job in jobs] == [["enqueued processing", "processing enqueued"]] * 3


async def test_it_gets_the_job_as_it_was_claimed(storage, registry, serve) -> None:
    heard: list[Job] = []
    registry.register("add", lambda a, b: a + b)
    registry.on_state_change(lambda job, old, new: heard.append(job))
    server = await serve()
    await run(storage, Job("add", [1, 2], queue="default"))
    await until(lambda: len(heard) == 2)
    for job in heard:
        assert (job.state, job.attempt, job.worker_id) == (JobState.PROCESSING, 1, server.server_id)
        assert (job.args, job.result) == ([1, 2], None)


async def test_it_hears_nothing_of_what_was_not_written(storage, registry, serve, moves) -> None:
    go, started = asyncio.Event(), asyncio.Event()

    @registry.task
    async def hold() -> None:
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    job = Job("hold")
    await storage.enqueue(job)
    server = await serve()
    await started.wait()
    faults = Faulty(storage)
    faults.hold("renew")  # so that it does not hear of it at once
    await storage.cancel(job.id)
    go.set()
    await until(lambda: server.snapshot().refused)
    faults.release("renew")
    await server.stop()
    assert moves[job.id] == ["enqueued processing"]


class Abort(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("how", ["plain", "async"])
async def test_one_that_raises_is_logged_and_harms_nobody(storage, registry, serve, caplog, error, how) -> None:
    heard: list[str] = []
    registry.register("note", lambda: "noted")

    def broken(job, old, new) -> None:
        raise error("no")

    async def broken_later(job, old, new) -> None:
        await asyncio.sleep(0)
        raise error("no")

    registry.on_state_change(broken if how == "plain" else broken_later)
    registry.on_state_change(lambda job, old, new: heard.append(new.value))
    server = await serve()
    [job] = await run(storage, Job("note"))
    assert job.result == "noted"
    await until(lambda: heard == ["processing", "succeeded"])
    texts = [record.getMessage() for record in caplog.records if record.name == "qml_nb.server"]
    assert texts == [
        f"a state-change hook failed for {job.id}: enqueued to processing",
        f"a state-change hook failed for {job.id}: processing to succeeded",
    ]
    await full_house(server, 2)


async def test_a_slow_one_holds_up_no_job_and_a_server_that_stops_waits_for_it_no_longer_than_for_jobs(
    storage, registry, serve
) -> None:
    registry.register("note", lambda: "noted")

    @registry.on_state_change
    async def hang(job, old, new) -> None:
        await asyncio.Event().wait()

    server = await serve(worker_count=2, shutdown_timeout=0.05)
    assert [job.result for job in await run(storage, *(Job("note") for _ in range(20)))] == ["noted"] * 20
    began = monotonic()
    await server.stop()
    assert monotonic() - began < 15


async def test_one_that_falls_far_behind_misses_the_oldest_and_that_is_logged(
    storage, registry, serve, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(hooks, "MOVES_KEPT", 10)
    heard: list[str] = []
    go = asyncio.Event()
    registry.register("note", lambda: "noted")

    @registry.on_state_change
    async def slow(job, old, new) -> None:
        heard.append(new.value)
        await go.wait()

    server = await serve()
    await run(storage, *(Job("note") for _ in range(20)))
    await until(lambda: server.snapshot().succeeded == 20)
    go.set()
    await server.stop()
    assert heard[0] == "processing"
    assert len(heard) == 11
    assert heard[-1] == "succeeded"
    assert "fell behind and missed 29 moves" in caplog.text


async def test_one_that_comes_while_servers_run_hears_of_the_next_move(storage, registry, serve) -> None:
    go = asyncio.Event()
    heard: list[str] = []
    registry.register("hold", go.wait)
    await serve()
    job = Job("hold")
    await storage.enqueue(job)
    await in_state(storage, job, JobState.PROCESSING)
    registry.on_state_change(lambda job, old, new: heard.append(f"{old} {new}"))
    go.set()
    await until(lambda: heard)
    assert heard == ["processing succeeded"]


@pytest.mark.parametrize("hook", [5, None, "print"])
def test_one_that_can_not_be_called_is_refused(registry, hook) -> None:
    with pytest.raises(InvalidValue, match="expected hook to be callable"):
        registry.on_state_change(hook)


class Unusual(BaseException):
    """Neither an error nor a way to end the program."""


async def test_one_that_raises_what_is_no_exception_hears_of_the_next_moves_too(storage, registry, serve) -> None:
    heard: list[JobState] = []

    @registry.on_state_change
    def note(job: Job, old: JobState, new: JobState) -> None:
        heard.append(new)
        raise Unusual

    registry.register("good", lambda: 1)
    await serve()
    await run(storage, Job("good"))
    await until(lambda: heard == [JobState.PROCESSING, JobState.SUCCEEDED])
