"""A result that the storage does not take fails its job, and keeps no other from being settled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from qml_nb import BackgroundJobServer, Job, JobState, WorkerRegistry, job_context, open_storage
from qml_nb.servers import LocalServer, LocalServers


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A Redis that takes no text of more than a megabyte."""
    with LocalServers() as servers:
        yield servers.server(servers.redis(options={"proto-max-bulk-len": "1mb"}))


@pytest.fixture
def registry() -> WorkerRegistry:
    """Tasks whose results are as large as asked for."""
    registry = WorkerRegistry()

    @registry.task
    async def text(size: int) -> str:
        return "x" * size

    return registry


async def test_it_fails_with_the_reason_and_the_others_succeed(server, registry) -> None:
    async with await open_storage(server.url, key_prefix="one") as storage:
        huge = Job("text", [2_000_000], max_retries=3)
        others = [Job("text", [size]) for size in (1, 10, 100_000, 200_000)]
        await storage.enqueue_many([huge, *others])
        async with BackgroundJobServer(storage, registry, worker_count=10):
            await storage.drained(timeout=60)
        failed = await storage.get(huge.id)
        assert failed.state is JobState.FAILED
        assert "its result of 2,000,002 bytes could not be stored" in failed.error
        assert failed.attempt == 1
        for job in others:
            assert len((await storage.get(job.id)).result) == job.args[0]


async def test_several_of_them_and_those_that_come_later(server, registry) -> None:
    async with await open_storage(server.url, key_prefix="several") as storage:
        async with BackgroundJobServer(storage, registry, worker_count=10):
            huge = [Job("text", [2_000_000]) for _ in range(3)]
            await storage.enqueue_many(huge)
            await asyncio.sleep(0.2)
            later = [Job("text", [1]) for _ in range(20)]
            await storage.enqueue_many(later)
            for job in later:
                assert await storage.result(job.id, timeout=60) == "x"
            await storage.drained(timeout=60)
        counts = await storage.get_job_counts()
        assert (counts[JobState.FAILED], counts[JobState.SUCCEEDED]) == (3, 20)


async def test_a_large_result_is_kept_while_the_storage_is_away(registry) -> None:
    with LocalServers() as servers:
        server = servers.server(servers.redis(durable=True))
        async with await open_storage(server.url, command_timeout=0.3) as storage:
            started, go = asyncio.Event(), asyncio.Event()

            @registry.task
            async def slow() -> str:
                started.set()
                await go.wait()
                return "x" * 300_000

            job = Job("slow")
            await storage.enqueue(job)
            async with BackgroundJobServer(storage, registry, worker_count=2, lease=60.0):
                await asyncio.wait_for(started.wait(), 30)
                await asyncio.to_thread(server.kill)
                go.set()
                await asyncio.sleep(3.0)  # more than three tries
                await asyncio.to_thread(server.restart)
                await storage.drained(timeout=60)
            assert len((await storage.get(job.id)).result) == 300_000


async def test_a_message_of_progress_is_bounded(server) -> None:
    registry = WorkerRegistry()

    @registry.task
    async def tells(size: int) -> None:
        job_context().progress(1, message="x" * size)

    async with await open_storage(server.url, key_prefix="told") as storage:
        short, long = Job("tells", [10_000]), Job("tells", [10_001])
        await storage.enqueue_many([short, long])
        async with BackgroundJobServer(storage, registry):
            await storage.drained(timeout=60)
        assert (await storage.get(short.id)).state is JobState.SUCCEEDED
        assert "to have at most 10,000 characters, got 10001" in (await storage.get(long.id)).error
