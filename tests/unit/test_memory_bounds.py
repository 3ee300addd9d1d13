"""The memory storage forgets what is over: nothing piles up, however long it runs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from qml_nb import validate
from qml_nb.job import Job
from qml_nb.states import CRASH_ATTEMPTS, JobState
from qml_nb.storage import MemoryStorage
from qml_nb.storage.backend import ServerInfo
from qml_nb.storage.memory import MemoryBackend
from tests.clock import at

ROUNDS = 10_000
BOUND = 2_500
"""Well below one entry a round, above the dead entries that it may keep to save work."""

WEEK = 7 * 86_400
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage(max_finished_jobs=10)


def inside(storage: MemoryStorage) -> MemoryBackend:
    """The backend, whose containers are looked at here and nowhere else."""
    assert isinstance(storage.backend, MemoryBackend)
    return storage.backend


def entries(storage: MemoryStorage) -> int:
    """How many entries lie in all the containers, dead ones included."""
    backend = inside(storage)
    lanes = [lane for queue in backend._queues.values() for lane in queue.lanes.values()]
    containers = [list(backend._jobs), backend._jobs._parts, backend._running, backend._calendar]
    containers += [backend._job_locks, backend._locks, backend._servers, backend._watched]
    containers += [backend._uniques.held, backend._limited]
    containers += [*backend._shelf.values(), backend._queues, backend._inboxes, backend._parked]
    containers += [ears._followers for ears in storage._ears.values()]
    return sum(map(len, [*lanes, *containers])) + len(lanes)


async def enqueue_and_cancel(storage: MemoryStorage, number: int) -> None:
    job = Job("work")
    await storage.enqueue(job)
    await storage.cancel(job.id)


async def enqueue_and_delete(storage: MemoryStorage, number: int) -> None:
    job = Job("work", queue=f"q{number % 3}")
    await storage.enqueue(job)
    await storage.delete(job.id)


async def schedule_and_cancel(storage: MemoryStorage, number: int) -> None:
    job = Job("work")
    await storage.schedule(job, delay=WEEK)
    await storage.cancel(job.id)


async def fail_and_requeue(storage: MemoryStorage, number: int) -> None:
    if not number:
        await storage.enqueue(Job("work"))
    job = await storage.fetch_and_lock_job("worker")
    assert job is not None
    await storage.fail(job, "it broke")
    await storage.requeue(job.id)


async def retry_and_requeue(storage: MemoryStorage, number: int) -> None:
    if not number:
        await storage.enqueue(Job("work"))
    job = await storage.fetch_and_lock_job("worker")
    assert job is not None
    await storage.retry(job, WEEK)
    await storage.requeue(job.id)


async def update_a_waiting_job(storage: MemoryStorage, number: int) -> None:
    await storage.enqueue(job := Job("work", id="00000000-0000-7000-8000-000000000000"))
    await storage.update(job.replace(priority=number, queue=f"q{number}"))


async def update_a_finished_job(storage: MemoryStorage, number: int) -> None:
    await storage.enqueue(job := Job("work", id="00000000-0000-7000-8000-000000000000"))
    await storage.cancel(job.id)
    await storage.update(job.replace(priority=number))


async def run_in_a_new_queue(storage: MemoryStorage, number: int) -> None:
    await storage.enqueue(Job("work", queue=f"q{number}"))
    job = await storage.fetch_and_lock_job("worker")
    assert job is not None
    await storage.complete(job)


async def hand_back(storage: MemoryStorage, number: int) -> None:
    await storage.enqueue(job := Job("work", id="00000000-0000-7000-8000-000000000000"))
    claimed = await storage.fetch_and_lock_job("worker")
    assert claimed is not None
    assert claimed.id == job.id
    await storage.hand_back(claimed)


async def take_locks(storage: MemoryStorage, number: int) -> None:
    await storage.enqueue(job := Job("work", id="00000000-0000-7000-8000-000000000000"))
    await storage.try_acquire_lock(f"lock {number}", "owner", 1.0, now=LONG_AGO)
    await storage.try_acquire_job_lock(job.id, "owner", 1.0, now=LONG_AGO)


async def pause_and_resume(storage: MemoryStorage, number: int) -> None:
    await storage.pause_queue(f"q{number}")
    await storage.resume_queue(f"q{number}")


async def bound_and_let_loose(storage: MemoryStorage, number: int) -> None:
    await storage.configure_queue(f"q{number}", concurrency=1)
    await storage.configure_queue(f"q{number}")


async def take_a_key_for_a_while(storage: MemoryStorage, number: int) -> None:
    job = Job("work", unique_key=f"key {number}", unique_for=1.0)
    await storage.enqueue_many([job], now=LONG_AGO)
    await storage.cancel(job.id)


async def take_a_key_until_the_end(storage: MemoryStorage, number: int) -> None:
    job = Job("work", unique_key=f"key {number}")
    await storage.enqueue(job)
    await (storage.delete if number % 2 else storage.cancel)(job.id)


async def drop_the_oldest(storage: MemoryStorage, number: int) -> None:
    await storage.configure_queue("default", max_waiting=3, when_full="drop_oldest")
    await storage.enqueue(Job("work", priority=number % 5))


async def register_and_die(storage: MemoryStorage, number: int) -> None:
    await storage.register_server(ServerInfo(f"server {number}", "server", 1), now=LONG_AGO)


async def wait_for_a_result_in_vain(storage: MemoryStorage, number: int) -> None:
    job = Job("work")
    await storage.enqueue(job)
    waiting = asyncio.create_task(storage.result(job.id))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await storage.cancel(job.id)


async def wait_for_a_result(storage: MemoryStorage, number: int) -> None:
    job = Job("work")
    await storage.enqueue(job)
    claimed = await storage.fetch_and_lock_job("worker")
    assert claimed is not None
    waiting = asyncio.create_task(storage.result(job.id))
    await asyncio.sleep(0)
    await storage.complete(claimed, number)
    assert await waiting == number


async def wait_in_vain(storage: MemoryStorage, number: int) -> None:
    assert await storage.wait(["q"], 0.0) is False


async def wait_and_give_up(storage: MemoryStorage, number: int) -> None:
    waiting = asyncio.create_task(storage.wait(["q"], 60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting


async def subscribe_and_leave(storage: MemoryStorage, number: int) -> None:
    messages = await storage.subscribe(f"channel {number}")
    await storage.publish(f"channel {number}", b"hello")
    async for _ in messages:
        break
    await messages.aclose()  # type: ignore[attr-defined]


LOOPS: list[Callable[[MemoryStorage, int], Awaitable[None]]] = [
    *[enqueue_and_cancel, enqueue_and_delete, schedule_and_cancel, fail_and_requeue, retry_and_requeue, hand_back],
    *[update_a_waiting_job, update_a_finished_job, run_in_a_new_queue, take_locks, pause_and_resume],
    *[bound_and_let_loose, take_a_key_for_a_while, take_a_key_until_the_end, drop_the_oldest, register_and_die],
    *[wait_in_vain, wait_and_give_up, wait_for_a_result, wait_for_a_result_in_vain, subscribe_and_leave],
]


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_endless_loop_leaves_no_more_than_a_bounded_number_of_entries(
    storage: MemoryStorage, loop: Callable[[MemoryStorage, int], Awaitable[None]]
) -> None:
    await enqueue_and_cancel(storage, 0)  # what is over lies behind this one, which is kept
    for number in range(ROUNDS):
        await loop(storage, number)
        if number % 500 == 0:
            await storage.sweep()
    await storage.sweep()

    assert entries(storage) < BOUND


async def test_names_that_were_checked_are_not_kept_for_ever() -> None:
    for number in range(3 * validate._NAMES_KEPT):
        validate.check_name("queue", f"queue {number}")

    assert len(validate._names) <= validate._NAMES_KEPT


# -- max_finished_jobs


async def finish(storage: MemoryStorage, state: JobState, *, now: float) -> str:
    """Store a job, and end it in a final state."""
    await storage.enqueue(Job("work"))
    job = await storage.fetch_and_lock_job("worker", now=at(now))
    assert job is not None
    if state is JobState.SUCCEEDED:
        await storage.complete(job, now=at(now))
    elif state is JobState.FAILED:
        await storage.fail(job, "it broke", now=at(now))
    else:
        await storage.cancel(job.id, now=at(now))
    return job.id


FINAL = [JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED]


async def test_the_oldest_finished_jobs_go_first_whatever_their_state() -> None:
    storage = MemoryStorage(max_finished_jobs=4)
    made = [await finish(storage, FINAL[number * 7 % 3], now=number) for number in range(12)]

    assert [job.id for job in await storage.list()] == made[:-5:-1]
    assert sum((await storage.get_job_counts()).values()) == 4


@pytest.mark.parametrize("state", FINAL)
async def test_none_are_kept_with_a_bound_of_zero(state: JobState) -> None:
    storage = MemoryStorage(max_finished_jobs=0)

    await finish(storage, state, now=0)

    assert await storage.list() == []


async def test_the_bound_holds_for_jobs_that_a_sweep_fails() -> None:
    storage = MemoryStorage(max_finished_jobs=0)
    await storage.enqueue(Job("work"))
    for attempt in range(CRASH_ATTEMPTS):
        await storage.fetch_and_lock_job("worker", lease=10, now=at(100 * attempt))
        await storage.sweep(now=at(100 * attempt + 11))

    assert await storage.list() == []


async def test_unfinished_jobs_are_never_dropped() -> None:
    storage = MemoryStorage(max_finished_jobs=0)
    await storage.enqueue_many([Job("work") for _ in range(50)])
    await finish(storage, JobState.SUCCEEDED, now=0)

    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 50


async def test_without_a_bound_all_finished_jobs_are_kept() -> None:
    storage = MemoryStorage(max_finished_jobs=None)
    for number in range(50):
        await finish(storage, FINAL[number % 3], now=number)

    assert sum((await storage.get_job_counts()).values()) == 50
