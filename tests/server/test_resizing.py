"""The number of slots changes while the server runs; jobs that run are left in peace."""

from __future__ import annotations

import asyncio

import pytest

from qml_nb import BackgroundJobServer, InvalidValue, Job, JobState
from tests.server.waiting import ended, full_house, run, until


class Counted:
    """Jobs that run until `go` is set, and how many of them ran at a time at the most."""

    def __init__(self, registry) -> None:
        self.go = asyncio.Event()
        self.now = self.most = 0
        registry.register("count", self._count)

    async def _count(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1


@pytest.fixture
def counted(registry) -> Counted:
    return Counted(registry)


async def test_more_slots_are_filled_at_once(storage, registry, serve, counted) -> None:
    await storage.enqueue_many([Job("count") for _ in range(20)])
    server = await serve(worker_count=2, fetch_batch_size=1, polling_interval=60)
    await until(lambda: counted.now == 2)
    server.resize(12)
    await until(lambda: counted.now == 12)
    assert server.snapshot().slots == 12
    counted.go.set()
    await server.drained(timeout=20)
    await full_house(server, 12)


async def test_more_slots_take_first_what_waits_inside(storage, registry, serve, counted) -> None:
    await storage.enqueue_many([Job("count") for _ in range(5)])
    server = await serve(worker_count=1, fetch_batch_size=5)
    await until(lambda: counted.now == 1)
    server.resize(4)
    await until(lambda: counted.now == 4)
    assert (server.snapshot().claimed, server.snapshot().buffered) == (5, 1)
    counted.go.set()


async def test_fewer_slots_let_running_jobs_end_and_start_no_other_until_then(
    storage, registry, serve, counted
) -> None:
    jobs = [Job("count") for _ in range(30)]
    await storage.enqueue_many(jobs)
    server = await serve(worker_count=8, fetch_batch_size=1)
    await until(lambda: counted.now == 8)
    server.resize(2)
    assert (server.snapshot().slots, server.snapshot().busy) == (2, 8)
    counted.go.set()
    await until(lambda: server.snapshot().succeeded >= 8)
    counted.most = 0
    await ended(storage, *jobs)
    assert counted.most <= 2
    await full_house(server, 2)


async def test_down_and_up_again_ends_where_it_should(storage, registry, serve, counted) -> None:
    await storage.enqueue_many([Job("count") for _ in range(40)])
    server = await serve(worker_count=10, fetch_batch_size=1)
    await until(lambda: counted.now == 10)
    for count in (1, 20, 3, 15):
        server.resize(count)
    await until(lambda: counted.now == 15)
    counted.go.set()
    await server.drained(timeout=20)
    await full_house(server, 15)
    assert counted.most == 15


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2", 100_001])
async def test_a_number_that_can_not_be_is_refused(serve, count) -> None:
    server = await serve()
    with pytest.raises(InvalidValue, match="worker_count"):
        server.resize(count)
    await full_house(server, 2)


def test_a_server_that_does_not_run_has_nothing_to_resize(storage, registry) -> None:
    BackgroundJobServer(storage, registry).resize(5)


async def test_drained_returns_when_the_servers_own_queues_are_empty(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    await storage.enqueue(Job("note", queue="elsewhere"))
    server = await serve(queues=["here"])
    await run(storage, Job("note", queue="here"))
    await server.drained(timeout=20)
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 1


async def test_drained_waits_for_scheduled_and_running_jobs(storage, registry, serve, counted) -> None:
    await storage.schedule(Job("count"), delay=0.05)
    server = await serve()
    drained = asyncio.create_task(server.drained())
    await until(lambda: counted.now == 1)
    assert not drained.done()
    counted.go.set()
    await drained
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 1


async def test_drained_says_what_is_left_after_its_timeout(storage, registry, serve) -> None:
    await storage.schedule(Job("note"), delay=3600)
    server = await serve()
    with pytest.raises(TimeoutError, match=r"1 jobs are unfinished after 0\.05 s in default"):
        await server.drained(timeout=0.05)
