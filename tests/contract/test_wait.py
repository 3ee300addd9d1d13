"""Who waits for work is woken as soon as there may be some, and not by work for others."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, put

LONG = 30.0
"""Seconds that no wait in these tests takes: it is woken long before."""
SHORT = 0.02
"""Seconds after which a wait that nothing ends is taken for one that goes on."""


async def waiting(storage: Storage, queues: list[str] | None = None, timeout: float = LONG) -> asyncio.Task[bool]:
    """A task that has begun to wait."""
    task = asyncio.create_task(storage.wait(queues, timeout))
    await asyncio.sleep(SHORT)
    assert not task.done()
    return task


async def woken(task: asyncio.Task[bool]) -> bool:
    """Whether a waiting task comes back with True, within a bound that only a lost wake-up reaches."""
    return await asyncio.wait_for(task, 10)


async def sleeps_on(task: asyncio.Task[bool]) -> bool:
    """Whether a task still waits after a while; it is ended then."""
    await asyncio.sleep(SHORT)
    still = not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return still


async def test_it_returns_at_once_when_there_is_work(storage: Storage) -> None:
    await put(storage, queue="a")

    assert await storage.wait(timeout=0) is True
    assert await storage.wait(["b", "a"], 0) is True


async def test_it_returns_false_when_the_time_is_up(storage: Storage) -> None:
    assert await storage.wait(timeout=SHORT) is False
    assert await storage.wait(["a"], 0) is False


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.ENQUEUED])
async def test_only_enqueued_jobs_are_work(storage: Storage, state: JobState) -> None:
    await bring_to(storage, state)

    assert await storage.wait(timeout=0) is False


async def test_work_in_another_queue_is_none(storage: Storage) -> None:
    await put(storage, queue="a")

    assert await storage.wait(["b", "c"], 0) is False


Bring = Callable[[Storage], Awaitable[Any]]


async def schedule_and_sweep(storage: Storage) -> None:
    await bring_to(storage, JobState.SCHEDULED)
    await storage.sweep(now=at(60))


async def retry_and_sweep(storage: Storage) -> None:
    await bring_to(storage, JobState.AWAITING_RETRY)
    await storage.sweep(now=at(60))


async def fail_and_requeue(storage: Storage) -> None:
    await storage.requeue((await bring_to(storage, JobState.FAILED)).id)


async def lose_lease(storage: Storage) -> None:
    await bring_to(storage, JobState.PROCESSING)
    await storage.sweep(now=at(1_000))


async def hand_back(storage: Storage) -> None:
    await put(storage)
    await storage.hand_back(await claim(storage))


async def update_into(storage: Storage) -> None:
    [job] = await put(storage, queue="elsewhere")
    await storage.update(job.replace(queue="default"))


async def unlock(storage: Storage) -> None:
    [job] = await put(storage, queue="elsewhere")
    await storage.try_acquire_job_lock(job.id, "owner")
    await storage.update(job.replace(queue="default"))
    await storage.release_job_lock(job.id, "owner")


BRINGERS: list[Bring] = [put, schedule_and_sweep, retry_and_sweep, fail_and_requeue, lose_lease]
BRINGERS += [hand_back, update_into, unlock]


@pytest.mark.parametrize("bring", BRINGERS)
async def test_work_wakes_however_it_comes(storage: Storage, bring: Bring) -> None:
    task = await waiting(storage, ["default"])

    await bring(storage)

    assert await woken(task) is True
    assert await storage.wait(["default"], 0) is True


async def test_a_resumed_queue_wakes_who_waits_for_it(storage: Storage) -> None:
    await storage.pause_queue("default")
    await put(storage)
    task = await waiting(storage)

    await storage.resume_queue("default")

    assert await woken(task) is True


@pytest.mark.parametrize("queues", [None, ["a"], ["b", "a"]])
async def test_a_push_wakes_who_asked_for_its_queue(storage: Storage, queues: list[str] | None) -> None:
    task = await waiting(storage, queues)

    await put(storage, queue="a")

    assert await woken(task) is True


async def test_a_push_leaves_asleep_who_asked_for_other_queues(storage: Storage) -> None:
    task = await waiting(storage, ["b"])

    await put(storage, queue="a")

    assert await sleeps_on(task)


async def test_a_push_from_another_thread_wakes(storage: Storage, connect: Any) -> None:
    task = await waiting(storage)

    async def push() -> None:
        await (await connect()).enqueue(Job("work"))

    Thread(target=lambda: asyncio.run(push())).start()

    assert await woken(task) is True


async def test_a_waiter_in_another_thread_is_woken(storage: Storage, connect: Any) -> None:
    async def wait() -> bool:
        return await (await connect()).wait(timeout=LONG)

    thread = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(wait())))
    await asyncio.sleep(SHORT)
    await put(storage)

    assert await asyncio.wait_for(thread, 10) is True


async def test_several_jobs_wake_several_waiters(storage: Storage) -> None:
    tasks = [await waiting(storage) for _ in range(3)]

    await put(storage, 3)

    assert [await woken(task) for task in tasks] == [True] * 3


async def put_and_cancel(storage: Storage, first: asyncio.Task[bool], turns: int) -> bool:
    """Whether a waiter was cancelled before it could return, so many turns of the loop after a job was sent."""
    putting = asyncio.create_task(put(storage, queue="a"))
    for _ in range(turns):
        await asyncio.sleep(0)
    cancelled = first.cancel()
    await putting
    return cancelled


# From before the job is stored, over all that may lie between a wake-up and its waiter's return, to after it.
TURNS = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55]


@pytest.mark.parametrize("turns", TURNS)
async def test_a_cancelled_waiter_passes_its_wake_up_on(storage: Storage, turns: int) -> None:
    first, second = await waiting(storage, ["a"]), await waiting(storage, ["a"])

    if await put_and_cancel(storage, first, turns):
        assert await woken(second) is True
    else:
        assert first.result() is True
        assert await sleeps_on(second)


@pytest.mark.parametrize("turns", TURNS)
async def test_a_wake_up_is_passed_on_to_who_asked_for_that_queue(storage: Storage, turns: int) -> None:
    first, other, second = [await waiting(storage, names) for names in (["a", "b"], ["b"], ["a"])]

    if await put_and_cancel(storage, first, turns):
        assert await woken(second) is True
    assert await sleeps_on(other)
    second.cancel()


async def test_a_waiter_cancelled_before_there_was_work_takes_none_away(storage: Storage) -> None:
    first, second = await waiting(storage), await waiting(storage)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first

    await put(storage)

    assert await woken(second) is True


async def test_no_wake_up_is_lost_between_looking_and_sleeping(storage: Storage, connect: Any) -> None:
    """A worker that claims, finds nothing and waits must see each job of a producer in another thread."""

    async def produce() -> None:
        other = await connect()
        for _ in range(300):
            await other.enqueue(Job("work", created_at=NOW))
            await asyncio.sleep(0)

    producer = Thread(target=lambda: asyncio.run(produce()))
    producer.start()
    got = 0
    while got < 300:
        jobs = await storage.fetch_available_jobs_atomic("worker", 3)
        got += len(jobs)
        if not jobs:
            assert await storage.wait(timeout=10), f"woke for {got} of 300 jobs"
    producer.join()


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", None])
async def test_a_bad_timeout_is_refused(storage: Storage, timeout: Any) -> None:
    with pytest.raises(InvalidValue, match="expected timeout to be"):
        await storage.wait(timeout=timeout)


async def test_bad_queues_are_refused(storage: Storage) -> None:
    with pytest.raises(InvalidValue, match="expected queues to be a list of names"):
        await storage.wait("email")
