"""A storage that is away for a while: the server outlives it, and loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from qml_nb import Job, JobState, RetryPolicy, StorageUnavailable
from qml_nb.server import server as server_module
from qml_nb.server.demand import MOST
from tests.server.faults import Faulty
from tests.server.waiting import ended, full_house, in_state, run, until

FOR_LONG = 10**9


@pytest.fixture
def faults(storage) -> Faulty:
    return Faulty(storage)


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    """Try again soon, so that the tests need not wait."""
    monkeypatch.setattr(server_module, "_RETRY_FIRST", 0.01)
    monkeypatch.setattr(server_module, "_RETRY_LONGEST", 0.05)


@pytest.fixture
def once(registry) -> list[int]:
    """The numbers of the jobs that ran, in order."""
    ran: list[int] = []
    registry.register("note", ran.append)
    return ran


def notes(many: int) -> list[Job]:
    return [Job("note", [number]) for number in range(many)]


@pytest.mark.parametrize(
    "verb", ["claim", "settle", "wait", "renew", "sweep", "beat_server", "due_recurring", "publish"]
)
async def test_a_verb_that_fails_a_few_times_loses_nothing(storage, registry, serve, faults, once, verb) -> None:
    server = await serve(lease=0.3, scheduler_poll_interval=0.02)
    faults.fail[verb] = 3
    jobs = await run(storage, *notes(20))
    assert sorted(once) == list(range(20))
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    await full_house(server, 2)


async def test_outcomes_are_kept_and_sent_again(storage, registry, serve, faults, once) -> None:
    await serve(worker_count=10)
    faults.fail["settle"] = FOR_LONG
    jobs = notes(30)
    await storage.enqueue_many(jobs)
    await until(lambda: len(once) == 30)
    await until(lambda: faults.calls["settle"] > 3)
    assert (await storage.get_job_counts())[JobState.PROCESSING] == 30
    faults.fail["settle"] = 0
    await ended(storage, *jobs)
    assert sorted(once) == list(range(30))


async def test_an_outcome_that_was_written_though_the_answer_got_lost_is_counted_once(
    storage, registry, serve, faults, once
) -> None:
    server = await serve(worker_count=1)
    faults.after["settle"] = 1
    [job] = await run(storage, *notes(1))
    assert job.state is JobState.SUCCEEDED
    await until(lambda: server.snapshot().refused == 1)
    assert once == [0]


async def test_claimed_jobs_whose_answer_got_lost_come_back_after_the_lease(
    storage, registry, serve, faults, once
) -> None:
    faults.after["claim"] = 1
    await storage.enqueue_many(jobs := notes(1))
    await serve(lease=0.2, scheduler_poll_interval=0.02)
    [job] = await ended(storage, *jobs)
    assert (job.state, job.attempt, once) == (JobState.SUCCEEDED, 2, [0])


async def test_jobs_that_ended_keep_their_lease_while_their_outcome_can_not_be_written(
    storage, registry, serve, faults, once
) -> None:
    await serve(lease=0.3, scheduler_poll_interval=0.02)
    faults.fail["settle"] = FOR_LONG
    [job] = notes(1)
    await storage.enqueue(job)
    await until(lambda: once)
    until_then = (await storage.get(job.id)).lease_ts + 0.3
    await until(lambda: faults.calls["renew"] > 6)
    assert (await storage.get(job.id)).lease_ts > until_then
    faults.fail["settle"] = 0
    [job] = await ended(storage, job)
    assert (job.attempt, once) == (1, [0])


async def test_failures_are_told_and_waits_between_them_grow(storage, registry, serve, faults, caplog) -> None:
    faults.fail["claim"] = 6
    await serve()
    await until(lambda: faults.calls["claim"] > 6)
    told = [record.message for record in caplog.records if "could not claim jobs" in record.message]
    assert len(told) == 6
    assert "connection lost" in told[0]
    assert [text.split("again in ")[1].split(" s")[0] for text in told] == ["0.0", "0.0", "0.0", "0.1", "0.1", "0.1"]


async def test_a_server_that_can_not_register_has_not_started(storage, registry, serve, faults) -> None:
    faults.fail["put_server"] = 1
    with pytest.raises(StorageUnavailable):
        await serve()


async def test_a_server_that_could_not_start_starts_at_the_next_call(storage, registry, serve, faults, once) -> None:
    server = await serve()
    await server.stop()
    faults.fail["put_server"] = 1
    with pytest.raises(StorageUnavailable):
        await server.start()
    assert not server.is_running
    await server.start()
    await run(storage, *notes(3))
    assert sorted(once) == [0, 1, 2]


async def test_stopping_writes_what_ended_though_the_storage_fails_at_first(
    storage, registry, serve, faults, once
) -> None:
    server = await serve(shutdown_timeout=10, worker_count=5)
    faults.fail["settle"] = 5
    jobs = notes(5)
    await storage.enqueue_many(jobs)
    await until(lambda: len(once) == 5)
    await server.stop()
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 5


async def test_stopping_hands_back_though_the_storage_fails_at_first(storage, registry, serve, faults) -> None:
    go = asyncio.Event()
    registry.register("hold", go.wait)
    await storage.enqueue_many([Job("hold") for _ in range(5)])
    server = await serve(worker_count=2, fetch_batch_size=5, shutdown_timeout=5)
    await until(lambda: server.snapshot().busy == 2)
    faults.fail["settle"] = 3
    stopping = asyncio.create_task(server.stop())
    await until(lambda: faults.fail["settle"] == 0)
    go.set()
    await stopping
    counts = await storage.get_job_counts()
    assert (counts[JobState.SUCCEEDED], counts[JobState.ENQUEUED], counts[JobState.PROCESSING]) == (2, 3, 0)


async def test_stopping_ends_though_the_storage_fails_for_ever(storage, registry, serve, faults, once) -> None:
    server = await serve(shutdown_timeout=0.1)
    for verb in ("claim", "settle", "wait", "renew", "sweep", "drop_server", "beat_server"):
        faults.fail[verb] = FOR_LONG
    async with asyncio.timeout(20):
        await server.stop()
    assert not server.is_running


async def test_stopping_waits_for_a_settlement_that_is_under_way(storage, registry, serve, faults, once) -> None:
    server = await serve(shutdown_timeout=10)
    faults.hold("settle")
    [job] = notes(1)
    await storage.enqueue(job)
    await until(lambda: faults.calls["settle"])
    stopping = asyncio.create_task(server.stop())
    for _ in range(10):
        await asyncio.sleep(0)
    faults.release("settle")
    await stopping
    assert (await storage.get(job.id)).state is JobState.SUCCEEDED


async def test_a_claim_that_is_under_way_when_the_server_stops_is_handed_back_or_run(
    storage, registry, serve, faults, once
) -> None:
    server = await serve(polling_interval=0.01, shutdown_timeout=5)
    faults.hold("claim")
    await storage.enqueue_many(notes(5))
    asked = faults.calls["claim"]
    await until(lambda: faults.calls["claim"] > asked)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.01)
    faults.release("claim")
    await stopping
    counts = await storage.get_job_counts()
    assert counts[JobState.PROCESSING] == 0
    assert counts[JobState.SUCCEEDED] == len(once)


async def test_a_storage_that_was_closed_lets_the_server_stop_at_once(storage, registry, serve, once) -> None:
    server = await serve(shutdown_timeout=60)
    await storage.close()
    async with asyncio.timeout(10):
        await server.stop()
    assert not server.is_running


async def test_no_more_is_claimed_while_too_many_outcomes_wait(storage, registry, serve, faults, once, monkeypatch):
    monkeypatch.setattr(server_module, "_UNSETTLED", 50)
    faults.fail["settle"] = FOR_LONG
    jobs = notes(500)
    await storage.enqueue_many(jobs)
    await serve(worker_count=10)
    await until(lambda: faults.calls["settle"] > 5)
    assert 50 < len(once) <= 50 + 10 + MOST  # and what one more claim may have brought
    faults.fail["settle"] = 0
    await ended(storage, *jobs)
    assert sorted(once) == list(range(500))


async def test_a_retry_is_kept_and_sent_again_too(storage, registry, serve, faults) -> None:
    @registry.task
    async def fail() -> None:
        raise ValueError("once more")

    await serve(retry=RetryPolicy.fixed(3600))
    faults.fail["settle"] = 3
    job = Job("fail", max_retries=1)
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert job.error.startswith("ValueError: once more")
