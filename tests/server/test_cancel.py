"""A job that is cancelled while it runs, or waits inside a server, is stopped at once."""

from __future__ import annotations

import asyncio
import threading
from time import sleep

import pytest

from qml_nb import BackgroundJobServer, Job, JobState, WorkerRegistry, job_context
from qml_nb.server import server as server_module
from qml_nb.storage.backend import CANCELLED
from tests.server.faults import Faulty
from tests.server.waiting import LONG, full_house, in_state, run, until


class Held:
    """Jobs that run until they are cancelled, or `go` is set."""

    def __init__(self, registry: WorkerRegistry) -> None:
        self.go = asyncio.Event()
        self.running: list[str] = []
        self.reasons: list[str | None] = []
        registry.register("hold", self._hold)

    async def _hold(self) -> None:
        ctx = job_context()
        self.running.append(ctx.job.id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            assert ctx.cancelled
            self.reasons.append(ctx.cancel_reason)
            raise


@pytest.fixture
def held(registry) -> Held:
    return Held(registry)


async def test_a_running_job_is_stopped_at_once_and_alone(storage, registry, serve, held) -> None:
    server = await serve(worker_count=2, lease=3600)
    jobs = [Job("hold"), Job("hold")]
    await storage.enqueue_many(jobs)
    await until(lambda: len(held.running) == 2)
    assert await storage.cancel(jobs[0].id)
    await until(lambda: held.reasons)
    assert held.reasons == ["lost"]
    await until(lambda: server.snapshot().busy == 1)
    held.go.set()
    await in_state(storage, jobs[1], JobState.SUCCEEDED)
    assert (await storage.get(jobs[0].id)).state is JobState.DELETED
    assert server.snapshot().refused == 0
    await full_house(server, 2)


async def test_a_plain_function_is_interrupted(storage, registry, serve) -> None:
    started, ended = threading.Event(), threading.Event()

    @registry.task
    def spin() -> None:
        started.set()
        try:
            while True:
                sleep(0.001)
        finally:
            ended.set()

    server = await serve(worker_count=1, lease=3600)
    await storage.enqueue(job := Job("spin"))
    await until(started.is_set)
    await storage.cancel(job.id)
    await until(ended.is_set)
    await full_house(server, 1)


async def test_a_job_that_waits_inside_the_server_never_starts(storage, registry, serve, held) -> None:
    jobs = [Job("hold") for _ in range(3)]
    await storage.enqueue_many(jobs)
    server = await serve(worker_count=1, fetch_batch_size=3, lease=3600)
    await until(lambda: held.running)
    await storage.cancel(jobs[1].id)
    await until(lambda: server.snapshot().buffered == 1)
    held.go.set()
    await in_state(storage, jobs[2], JobState.SUCCEEDED)
    assert held.running == [jobs[0].id, jobs[2].id]


async def test_many_at_once(storage, registry, serve, held) -> None:
    server = await serve(worker_count=500, lease=3600)
    jobs = [Job("hold") for _ in range(500)]
    await storage.enqueue_many(jobs)
    await until(lambda: len(held.running) == 500)
    await asyncio.gather(*(storage.cancel(job.id) for job in jobs[:499]))
    await until(lambda: len(held.reasons) == 499)
    assert server.snapshot().busy == 1
    held.go.set()


async def test_a_message_that_is_not_so_stops_nothing(storage, registry, serve, held) -> None:
    server = await serve(lease=3600)
    await storage.enqueue(job := Job("hold"))
    await until(lambda: held.running)
    renewed = Faulty(storage).calls
    for message in (job.id.encode(), b"\xff\xfe", b"", b"x" * 100_000, job.id.encode() + b"\n"):
        await storage.publish(CANCELLED, message)
    await until(lambda: renewed["renew"])
    await run(storage, Job("unknown"))
    assert server.snapshot().busy == 1
    held.go.set()
    await in_state(storage, job, JobState.SUCCEEDED)
    assert held.reasons == []


async def test_what_was_cancelled_before_the_server_could_listen_is_stopped_once_it_can(
    storage, registry, serve, held, monkeypatch
) -> None:
    monkeypatch.setattr(server_module, "_RETRY_FIRST", 0.01)
    faults = Faulty(storage)
    faults.fail["subscribe"] = 10**9
    await serve(lease=3600)
    await storage.enqueue(job := Job("hold"))
    await until(lambda: held.running and faults.calls["subscribe"] > 2)
    await storage.cancel(job.id)
    assert held.reasons == []
    faults.fail["subscribe"] = 0
    await until(lambda: held.reasons)


async def test_a_server_that_stopped_listens_no_more(storage, registry, held) -> None:
    for _ in range(3):
        async with BackgroundJobServer(storage, registry):
            await until(lambda: storage.backend._inboxes)
            assert len(storage.backend._inboxes[CANCELLED]) == 1
        assert CANCELLED not in storage.backend._inboxes


async def test_a_server_whose_storage_was_closed_stops_in_peace(storage, registry, serve) -> None:
    server = await serve()
    await until(lambda: storage.backend._inboxes)
    await storage.close()
    await asyncio.wait_for(server.stop(), LONG)
