"""No more jobs wait in a queue than its bound says: the next one is refused, or waits outside."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from qml_nb.errors import CapacityExceeded, QueueFull
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.conftest import Connect
from tests.contract.states import bring_to, claim, claim_ids, ids, put

WAYS = ["reject", "block", "drop_oldest"]


async def bounded(storage: Storage, most: int, when_full: str = "reject", **options: Any) -> None:
    """Let no more than so many jobs wait."""
    await storage.configure_queue("default", max_waiting=most, when_full=when_full, **options)


async def waiting_ids(storage: Storage) -> list[str]:
    """The ids of the jobs that wait, in order."""
    return ids(await storage.get_available_jobs(1_000))


# -- refused


async def test_a_full_queue_refuses_a_job_and_keeps_what_it_has(storage: Storage) -> None:
    await bounded(storage, 2)
    jobs = await put(storage, 2)

    with pytest.raises(QueueFull) as refusal:
        await storage.enqueue(Job("one too many"))

    assert (refusal.value.queue, refusal.value.max_waiting, refusal.value.offered) == ("default", 2, 1)
    assert ids(await storage.list()) == ids(jobs[::-1])


async def test_a_batch_that_does_not_fit_is_refused_whole(storage: Storage) -> None:
    await bounded(storage, 3)
    jobs = await put(storage, 2)

    with pytest.raises(QueueFull) as refusal:
        await storage.enqueue_many([Job("elsewhere", queue="b"), *[Job("work") for _ in range(2)]])

    assert (refusal.value.queue, refusal.value.max_waiting, refusal.value.offered) == ("default", 3, 2)
    assert ids(await storage.list()) == ids(jobs[::-1])
    assert await storage.enqueue_many([Job("fits"), *jobs]) == 1


async def test_of_many_callers_at_once_those_that_find_room_are_served(storage: Storage) -> None:
    await bounded(storage, 4)
    jobs = [Job("work", queue=queue) for queue in ["default", "b"] * 10]

    answers = await asyncio.gather(*(storage.enqueue(job) for job in jobs), return_exceptions=True)

    assert answers[1::2] == [True] * 10
    assert Counter(type(answer) for answer in answers[::2]) == {bool: 4, QueueFull: 6}
    assert sorted(await waiting_ids(storage)) == sorted(
        ids([job for job, answer in zip(jobs, answers, strict=True) if answer is True])
    )


async def test_a_refused_job_can_be_sent_again(storage: Storage) -> None:
    await bounded(storage, 1)
    await put(storage)
    job = Job("work")
    with pytest.raises(QueueFull):
        await storage.enqueue(job)
    await claim(storage)

    assert await storage.enqueue(job) is True

    assert await claim_ids(storage) == [job.id]


@pytest.mark.parametrize("when_full", WAYS)
async def test_a_resend_to_a_full_queue_is_answered_and_changes_nothing(storage: Storage, when_full: str) -> None:
    await bounded(storage, 2, when_full)
    jobs = await put(storage, 2)

    assert await storage.enqueue(jobs[0]) is False
    assert await storage.enqueue_many(jobs) == 0

    assert await waiting_ids(storage) == ids(jobs)


@pytest.mark.parametrize("when_full", WAYS)
async def test_room_for_all_lets_all_in(storage: Storage, when_full: str) -> None:
    await bounded(storage, 3, when_full)
    jobs = await put(storage, 2)

    assert await storage.enqueue(job := Job("work")) is True

    assert await waiting_ids(storage) == ids([*jobs, job])


async def test_a_job_named_twice_takes_one_place(storage: Storage) -> None:
    await bounded(storage, 1)
    job = Job("work")

    assert await storage.enqueue_many([job, job]) == 1


async def test_only_what_waits_takes_room(storage: Storage) -> None:
    await bounded(storage, 1)
    for state in JobState:
        if state is not JobState.ENQUEUED:
            await bring_to(storage, state)

    assert await storage.enqueue(Job("work")) is True


async def test_a_scheduled_job_comes_in_at_once_and_takes_room_when_it_is_due(storage: Storage) -> None:
    await bounded(storage, 1)
    await put(storage)

    assert await storage.schedule(Job("later"), at=at(60)) is True
    assert await storage.schedule(Job("later"), at=at(60), now=NOW) is True
    assert (await storage.sweep(now=at(60))).promoted == 2

    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 3
    await storage.fetch_available_jobs_atomic("worker", 2, now=NOW)
    with pytest.raises(QueueFull):
        await storage.enqueue(Job("work"))


async def requeue(storage: Storage, job: Job) -> None:
    await storage.fail(job, "it broke", now=NOW)
    await storage.requeue(job.id, now=NOW)


async def move_in(storage: Storage, job: Job) -> None:
    other = Job("work", queue="b")
    await storage.enqueue(other)
    await storage.update(other.replace(queue="default"))


BACK: dict[str, Callable[[Storage, Job], Awaitable[Any]]] = {
    "hand back": lambda storage, job: storage.hand_back(job, now=NOW),
    "retry": lambda storage, job: storage.retry(job, 1, now=NOW),
    "lose lease": lambda storage, job: storage.sweep(now=at(31)),
    "requeue": requeue,
    "move in": move_in,
}


@pytest.mark.parametrize("way", BACK)
@pytest.mark.parametrize("when_full", ["reject", "drop_oldest"])
async def test_what_comes_back_comes_in_full_or_not(storage: Storage, way: str, when_full: str) -> None:
    await bounded(storage, 1, when_full)
    await put(storage)
    running = await claim(storage)
    await put(storage)

    await BACK[way](storage, running)
    await storage.sweep(now=at(2))

    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 2
    assert (await storage.get_job_counts())[JobState.DELETED] == 0


async def test_a_bound_below_what_waits_drops_nothing(storage: Storage) -> None:
    jobs = await put(storage, 3)

    await bounded(storage, 1)

    assert await waiting_ids(storage) == ids(jobs)
    with pytest.raises(QueueFull):
        await storage.enqueue(Job("work"))


async def test_a_lifted_bound_lets_all_in(storage: Storage) -> None:
    await bounded(storage, 1)
    await put(storage)

    await storage.configure_queue("default")

    assert await storage.enqueue_many([Job("work") for _ in range(5)]) == 5


@pytest.mark.parametrize("when_full", WAYS)
async def test_the_bound_of_the_storage_holds_for_full_queues_too(connect: Connect, when_full: str) -> None:
    async with await connect(max_jobs=2) as storage:
        await bounded(storage, 2, when_full)
        jobs = await put(storage, 2)

        for attempt in (storage.enqueue(Job("work")), storage.enqueue_many([Job("work")])):
            with pytest.raises(CapacityExceeded) as refusal:
                await attempt
            assert refusal.type is CapacityExceeded

        assert await waiting_ids(storage) == ids(jobs)


# -- waits outside


async def blocked(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that has begun to wait for room."""
    task = asyncio.create_task(call)
    await asyncio.sleep(0.05)
    assert not task.done()
    return task


async def test_a_caller_waits_until_there_is_room(storage: Storage) -> None:
    await bounded(storage, 1, "block")
    [first] = await put(storage)
    second = Job("work")
    task = await blocked(storage.enqueue(second))
    assert await storage.get(second.id) is None

    assert await claim_ids(storage) == [first.id]

    assert await asyncio.wait_for(task, 10) is True
    assert await claim_ids(storage) == [second.id]


async def test_many_who_wait_come_in_one_by_one(storage: Storage) -> None:
    await bounded(storage, 2, "block")
    jobs = [Job("work") for _ in range(8)]
    calls = asyncio.gather(*(storage.enqueue(job) for job in jobs))

    claimed: list[str] = []
    while len(claimed) < len(jobs):
        counts = await storage.get_job_counts()
        assert counts[JobState.ENQUEUED] <= 2
        claimed += await claim_ids(storage)
        await asyncio.sleep(0)

    assert await calls == [True] * 8
    assert sorted(claimed) == sorted(ids(jobs))


async def test_who_waits_for_room_holds_up_no_other_queue(storage: Storage) -> None:
    await bounded(storage, 1, "block")
    await put(storage)
    task = await blocked(storage.enqueue(Job("work")))

    answers = await asyncio.gather(*(storage.enqueue(Job("work", queue="b")) for _ in range(3)))

    assert answers == [True] * 3
    assert not task.done()
    task.cancel()


async def test_who_no_longer_waits_for_room_sends_nothing(storage: Storage) -> None:
    await bounded(storage, 1, "block")
    await put(storage)
    job = Job("work")
    task = await blocked(storage.enqueue(job))

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await claim(storage)
    await asyncio.sleep(0.05)

    assert await storage.get(job.id) is None


async def test_a_batch_waits_until_there_is_room_for_all_of_it(storage: Storage) -> None:
    await bounded(storage, 2, "block")
    first, second = await put(storage, 2)
    task = await blocked(storage.enqueue_many([Job("work"), Job("work")]))
    assert await claim_ids(storage, 1) == [first.id]
    await asyncio.sleep(0.05)
    assert not task.done()

    assert await claim_ids(storage, 1) == [second.id]

    assert await asyncio.wait_for(task, 10) == 2


async def test_a_batch_that_will_never_fit_is_refused_at_once(storage: Storage) -> None:
    await bounded(storage, 2, "block")

    with pytest.raises(QueueFull) as refusal:
        await storage.enqueue_many([Job("work") for _ in range(3)])

    assert (refusal.value.max_waiting, refusal.value.offered) == (2, 3)
    assert await storage.list() == []


@pytest.mark.parametrize(
    ("options", "comes_in"), [({}, True), ({"max_waiting": 5}, True), ({"max_waiting": 1}, False)], ids=str
)
async def test_who_waits_for_room_goes_by_a_new_configuration(
    storage: Storage, options: dict[str, Any], comes_in: bool
) -> None:
    await bounded(storage, 1, "block")
    await put(storage)
    task = await blocked(storage.enqueue(Job("work")))

    await storage.configure_queue("default", **options)

    if comes_in:
        assert await asyncio.wait_for(task, 10) is True
    else:
        with pytest.raises(QueueFull):
            await asyncio.wait_for(task, 10)
