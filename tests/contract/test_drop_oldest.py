"""A full queue may let new jobs in at the cost of its oldest ones."""

import asyncio

from qml_nb.job import Job
from qml_nb.states import DROPPED, JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.states import bring_to, claim, claim_ids, ids, put
from tests.contract.test_max_waiting import bounded, waiting_ids


async def test_the_oldest_makes_room_and_is_kept_as_deleted(storage: Storage) -> None:
    await bounded(storage, 2, "drop_oldest")
    first, second = await put(storage, 2)

    assert await storage.enqueue(third := Job("work")) is True

    assert await waiting_ids(storage) == ids([second, third])
    dropped = await storage.get(first.id)
    assert dropped is not None
    assert (dropped.state, dropped.error, dropped.attempt) == (JobState.DELETED, DROPPED, 0)
    assert dropped.finished_at is not None
    assert dropped.expires_at is not None
    assert (await storage.get_job_counts())[JobState.DELETED] == 1


async def test_of_the_lowest_priority_the_oldest_goes_though_it_be_the_new_one(storage: Storage) -> None:
    await bounded(storage, 3, "drop_oldest")
    high = await put(storage, 2, priority=5)
    [low] = await put(storage, priority=1)

    assert await storage.enqueue(middle := Job("work", priority=3)) is True
    assert await waiting_ids(storage) == ids([*high, middle])
    assert await storage.enqueue(lowest := Job("work", priority=0)) is True

    assert await waiting_ids(storage) == ids([*high, middle])
    assert [job.error for job in await storage.list("deleted")] == [DROPPED] * 2
    assert ids(await storage.list("deleted")) == [lowest.id, low.id]


async def test_of_a_batch_beyond_the_bound_the_newest_stay(storage: Storage) -> None:
    await bounded(storage, 3, "drop_oldest")
    await put(storage, 2)
    jobs = [Job("work") for _ in range(5)]

    assert await storage.enqueue_many(jobs, now=NOW) == 5

    assert await waiting_ids(storage) == ids(jobs[2:])
    dropped = await storage.list("deleted")
    assert len(dropped) == 4
    assert {(job.error, job.finished_at) for job in dropped} == {(DROPPED, NOW)}


async def test_many_callers_at_once_are_all_served_and_the_bound_holds(storage: Storage) -> None:
    await bounded(storage, 3, "drop_oldest")

    answers = await asyncio.gather(*(storage.enqueue(Job("work")) for _ in range(50)))

    assert answers == [True] * 50
    counts = await storage.get_job_counts()
    assert (counts[JobState.ENQUEUED], counts[JobState.DELETED]) == (3, 47)


async def test_a_retried_job_is_as_old_as_it_is(storage: Storage) -> None:
    await bounded(storage, 2, "drop_oldest")
    [old] = await put(storage)
    await storage.retry(await claim(storage), 0, "it broke", now=NOW)
    [young] = await put(storage)
    await storage.sweep(now=NOW)

    await storage.enqueue(new := Job("work"))

    assert await waiting_ids(storage) == ids([young, new])
    dropped = await storage.get(old.id)
    assert dropped is not None
    assert (dropped.state, dropped.error, dropped.attempt) == (JobState.DELETED, DROPPED, 1)


async def test_a_queue_that_holds_too_many_comes_back_to_its_bound(storage: Storage) -> None:
    jobs = await put(storage, 5)
    await bounded(storage, 2, "drop_oldest")

    await storage.enqueue(new := Job("work"))

    assert await waiting_ids(storage) == ids([jobs[4], new])


async def test_what_brings_no_new_job_that_waits_drops_none(storage: Storage) -> None:
    jobs = await put(storage, 3)
    await bounded(storage, 1, "drop_oldest")

    assert await storage.enqueue(jobs[2]) is False
    assert await storage.enqueue_many(jobs) == 0
    assert await storage.schedule(Job("later"), delay=60) is True

    assert await waiting_ids(storage) == ids(jobs)


async def test_a_dropped_job_runs_no_more_and_can_not_be_requeued(storage: Storage) -> None:
    await bounded(storage, 1, "drop_oldest")
    [old] = await put(storage)
    [new] = await put(storage)

    assert await storage.requeue(old.id) is False
    assert await claim_ids(storage) == [new.id]
    assert await claim_ids(storage) == []


async def test_what_runs_and_what_is_scheduled_is_never_dropped(storage: Storage) -> None:
    await bounded(storage, 1, "drop_oldest")
    await bring_to(storage, JobState.SCHEDULED)
    await bring_to(storage, JobState.PROCESSING)

    await put(storage, 3)

    counts = await storage.get_job_counts()
    assert (counts[JobState.SCHEDULED], counts[JobState.PROCESSING], counts[JobState.DELETED]) == (1, 1, 2)
