"""The bounds of a queue hold however many claim and enqueue at once."""

import asyncio
from contextlib import suppress
from threading import Lock

from qml_nb.errors import QueueFull
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.conftest import Connect
from tests.contract.states import put
from tests.contract.threads import THREADS, in_threads


async def test_claims_from_several_threads_never_exceed_the_concurrency(storage: Storage, connect: Connect) -> None:
    await storage.configure_queue("default", concurrency=2)
    await put(storage, 60)
    running, peak, lock = 0, 0, Lock()

    def count(more: int) -> None:
        nonlocal running, peak
        with lock:
            running += more
            peak = max(peak, running)

    async def work(storage: Storage, number: int) -> int:
        done = 0
        while await storage.wait(timeout=0.05):
            jobs = await storage.fetch_available_jobs_atomic(f"worker-{number}", 3)
            count(len(jobs))
            for job in jobs:
                await asyncio.sleep(0.0005)
                count(-1)
                done += await storage.complete(job)
        return done

    done = await in_threads(connect, work)

    while jobs := await storage.fetch_available_jobs_atomic("worker", 3):  # one may have given up in a pause
        assert len(jobs) <= 2
        done += [1 for job in jobs if await storage.complete(job)]
    assert sum(done) == 60
    assert peak == 2


async def test_claims_from_several_threads_never_exceed_the_concurrency_while_jobs_run(
    storage: Storage, connect: Connect
) -> None:
    await storage.configure_queue("default", concurrency=5)
    await put(storage, 40)

    async def grab(storage: Storage, number: int) -> int:
        return sum([len(await storage.fetch_available_jobs_atomic(f"worker-{number}", 2)) for _ in range(10)])

    assert sum(await in_threads(connect, grab)) == 5


async def test_claims_from_several_threads_use_each_turn_once(storage: Storage, connect: Connect) -> None:
    await storage.configure_queue("default", rate=0.001, burst=7)
    await put(storage, 40)

    async def grab(storage: Storage, number: int) -> int:
        return sum([len(await storage.fetch_available_jobs_atomic(f"worker-{number}", 2)) for _ in range(10)])

    assert sum(await in_threads(connect, grab)) == 7


async def test_producers_in_several_threads_never_exceed_the_bound(storage: Storage, connect: Connect) -> None:
    await storage.configure_queue("default", max_waiting=10)

    async def push(storage: Storage, number: int) -> int:
        stored = 0
        for turn in range(10):
            with suppress(QueueFull):
                stored += await storage.enqueue(Job("work"))
            with suppress(QueueFull):
                stored += await storage.enqueue_many([Job("work") for _ in range(1 + turn % 3)])
        return stored

    assert sum(await in_threads(connect, push)) == 10
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 10


async def test_producers_in_several_threads_drop_down_to_the_bound(storage: Storage, connect: Connect) -> None:
    await storage.configure_queue("default", max_waiting=10, when_full="drop_oldest")

    async def push(storage: Storage, number: int) -> int:
        return sum([await storage.enqueue(Job("work")) for _ in range(20)])

    assert sum(await in_threads(connect, push)) == 20 * THREADS
    counts = await storage.get_job_counts()
    assert (counts[JobState.ENQUEUED], counts[JobState.DELETED]) == (10, 20 * THREADS - 10)


async def test_producers_who_wait_for_room_and_workers_lose_nothing(storage: Storage, connect: Connect) -> None:
    await storage.configure_queue("default", max_waiting=5, when_full="block")
    many = 20

    async def push_or_work(storage: Storage, number: int) -> int:
        if number % 2:
            return sum([await storage.enqueue(Job("work")) for _ in range(many)])
        done = 0
        while done < many:
            await storage.wait(timeout=0.05)
            for job in await storage.fetch_available_jobs_atomic(f"worker-{number}", min(3, many - done), now=NOW):
                done += await storage.complete(job, now=NOW)
        return done

    assert await in_threads(connect, push_or_work) == [many] * THREADS
