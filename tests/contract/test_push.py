"""Jobs come in: stored when the call returns, once an id, all or none."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from qml_nb.errors import CapacityExceeded, InvalidJob, InvalidStateTransition, InvalidValue
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.conftest import Connect
from tests.contract.states import bring_to, claim, claim_ids, ids, put

FINISHED = [JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED]


async def test_an_enqueued_job_is_stored_as_it_was_made(storage: Storage) -> None:
    job = Job(
        "send",
        [1, "two"],
        {"three": 3.0},
        queue="mail",
        priority=-7,
        max_retries=2,
        timeout=1.5,
        metadata={"trace": "abc"},
        job_type="mailing",
        created_at=NOW,
    )

    assert await storage.enqueue(job) is True

    assert await storage.get(job.id) == job


async def test_enqueue_can_be_awaited_gathered_timed_and_made_a_task(storage: Storage) -> None:
    jobs = [Job("work", [number]) for number in range(8)]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(storage.enqueue(jobs[0])), asyncio.create_task(storage.enqueue(jobs[1]))]
    assert asyncio.iscoroutinefunction(storage.enqueue)  # what frameworks ask before they call it in the loop
    answers = [await task for task in tasks]
    answers += await asyncio.gather(storage.enqueue(jobs[2]), storage.enqueue(jobs[3]))
    answers += [await asyncio.wait_for(storage.enqueue(jobs[4]), 30), await asyncio.shield(storage.enqueue(jobs[5]))]
    answers += await asyncio.to_thread(lambda: [asyncio.run(storage.enqueue(job)) for job in jobs[6:]])

    assert answers == [True] * 8
    assert sorted(await claim_ids(storage, limit=10)) == sorted(ids(jobs))


async def test_what_is_refused_is_refused_where_enqueue_is_awaited(storage: Storage) -> None:
    wrong: Any = "work"
    good, bad = storage.enqueue(Job("work")), storage.enqueue(wrong)

    assert await good is True
    with pytest.raises(InvalidJob, match="expected job to be a Job, got 'work'"):
        await bad


async def test_enqueue_returns_false_for_an_id_that_was_there_and_leaves_it_untouched(storage: Storage) -> None:
    first = Job("first", id=str(uuid4()))
    await storage.enqueue(first)

    assert await storage.enqueue(Job("second", id=first.id)) is False

    assert await storage.get(first.id) == first
    assert await claim_ids(storage) == [first.id]


@pytest.mark.parametrize("state", JobState)
async def test_a_resent_job_changes_nothing_wherever_the_first_one_got_to(storage: Storage, state: JobState) -> None:
    stored = await bring_to(storage, state)

    assert await storage.enqueue(Job("again", id=stored.id)) is False
    assert await storage.schedule(Job("again", id=stored.id), delay=5) is False

    assert await storage.get(stored.id) == stored
    assert (await storage.get_job_counts())[state] == 1


async def test_an_id_is_free_again_once_its_job_was_deleted(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.delete(job.id)

    assert await storage.enqueue(job) is True

    assert ids(await storage.get_available_jobs()) == [job.id]
    assert await claim_ids(storage) == [job.id]
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 0


async def test_enqueue_many_stores_all_in_order(storage: Storage) -> None:
    jobs = [Job("work", [number]) for number in range(100)]

    assert await storage.enqueue_many(iter(jobs)) == 100

    assert await claim_ids(storage) == ids(jobs)


async def test_enqueue_many_counts_only_new_jobs(storage: Storage) -> None:
    old, new = Job("old"), Job("new")
    await storage.enqueue(old)

    assert await storage.enqueue_many([old, new, new]) == 1

    assert await claim_ids(storage) == [old.id, new.id]


async def test_enqueue_many_of_nothing_stores_nothing(storage: Storage) -> None:
    assert await storage.enqueue_many([]) == 0


async def test_many_callers_at_once_each_get_the_answer_to_their_own_job(storage: Storage) -> None:
    old = await put(storage, 50)
    new = [Job("new") for _ in range(50)]
    mixed = [job for pair in zip(old, new, strict=True) for job in pair]

    answers = await asyncio.gather(*(storage.enqueue(job) for job in mixed))

    assert answers == [False, True] * 50


async def test_schedule_with_at_keeps_the_job_until_then(storage: Storage) -> None:
    job = Job("later")

    assert await storage.schedule(job, at=at(60)) is True

    stored = await storage.get(job.id)
    assert stored is not None
    assert (stored.state, stored.run_at) == (JobState.SCHEDULED, at(60))
    assert await claim_ids(storage, now=1_000) == []


async def test_schedule_with_delay_counts_from_now(storage: Storage) -> None:
    job = Job("later")

    await storage.schedule(job, delay=2.5, now=NOW)

    stored = await storage.get(job.id)
    assert stored is not None
    assert stored.run_at == at(2.5)


async def test_schedule_returns_false_for_an_id_that_was_there(storage: Storage) -> None:
    [job] = await put(storage)

    assert await storage.schedule(job, delay=1) is False

    assert await claim_ids(storage) == [job.id]


BAD: list[dict[str, Any]] = [
    {},
    {"at": NOW, "delay": 1.0},
    *[{"at": value} for value in (NOW.replace(tzinfo=None), 5, "soon")],
    *[{"delay": value} for value in (-1, float("nan"), 1e300, 10**400, "soon")],
]


@pytest.mark.parametrize("when", BAD)
async def test_schedule_refuses_a_bad_instant_and_stores_nothing(storage: Storage, when: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        await storage.schedule(Job("later"), **when)

    assert await storage.list() == []


@pytest.mark.parametrize("not_a_job", [None, "work", {"method": "work"}, Job])
async def test_what_is_no_job_is_refused(storage: Storage, not_a_job: Any) -> None:
    for attempt in (
        storage.enqueue(not_a_job),
        storage.enqueue_many([not_a_job]),
        storage.schedule(not_a_job, delay=1),
    ):
        with pytest.raises(InvalidJob, match="expected job to be a Job"):
            await attempt


async def test_a_bad_job_among_good_ones_stores_none(storage: Storage) -> None:
    with pytest.raises(InvalidJob):
        await storage.enqueue_many([Job("good"), "bad", Job("good")])  # type: ignore[list-item]

    assert await storage.list() == []


async def test_a_job_that_is_not_new_is_refused(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)

    for attempt in (storage.enqueue(claimed), storage.enqueue_many([claimed]), storage.schedule(claimed, delay=1)):
        with pytest.raises(InvalidStateTransition, match="is processing and can't become enqueued"):
            await attempt


# -- capacity


async def test_a_full_storage_refuses_a_job_and_keeps_what_it_has(connect: Any) -> None:
    async with await connect(max_jobs=2) as storage:
        jobs = await put(storage, 2)

        with pytest.raises(CapacityExceeded) as refusal:
            await storage.enqueue(Job("one too many"))

        assert (refusal.value.max_jobs, refusal.value.stored, refusal.value.offered) == (2, 2, 1)
        assert await claim_ids(storage) == ids(jobs)


async def test_a_batch_that_does_not_fit_is_refused_whole(connect: Any) -> None:
    async with await connect(max_jobs=3) as storage:
        jobs = await put(storage, 2)

        with pytest.raises(CapacityExceeded):
            await storage.enqueue_many([Job("fits"), Job("does not")])

        assert await claim_ids(storage) == ids(jobs)
        assert await storage.enqueue(Job("fits")) is True


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.PROCESSING, JobState.AWAITING_RETRY])
async def test_unfinished_jobs_take_room(connect: Any, state: JobState) -> None:
    async with await connect(max_jobs=1) as storage:
        await bring_to(storage, state)

        with pytest.raises(CapacityExceeded):
            await storage.schedule(Job("one too many"), delay=1)


@pytest.mark.parametrize("state", FINISHED)
async def test_finished_jobs_take_no_room(connect: Any, state: JobState) -> None:
    async with await connect(max_jobs=1) as storage:
        await bring_to(storage, state)

        assert await storage.enqueue(Job("next")) is True


async def test_a_resend_to_a_full_storage_is_answered_not_refused(connect: Any) -> None:
    async with await connect(max_jobs=2) as storage:
        jobs = await put(storage, 2)

        assert await storage.enqueue(jobs[0]) is False
        assert await storage.enqueue_many(jobs) == 0


async def test_new_jobs_that_fit_are_stored_beside_one_that_was_there(connect: Any) -> None:
    async with await connect(max_jobs=7) as storage:
        jobs = await put(storage, 4)
        more = [Job("work"), Job("work")]

        assert await storage.enqueue_many([jobs[0], *more]) == 2

        assert await claim_ids(storage) == ids([*jobs, *more])


async def test_a_failed_job_comes_back_only_where_there_is_room(connect: Any) -> None:
    async with await connect(max_jobs=1) as storage:
        failed = await bring_to(storage, JobState.FAILED)
        [waiting] = await put(storage)

        with pytest.raises(CapacityExceeded):
            await storage.requeue(failed.id)

        assert await storage.get(failed.id) == failed
        await storage.delete(waiting.id)
        assert await storage.requeue(failed.id) is True


async def test_a_job_named_twice_takes_one_place(connect: Connect) -> None:
    async with await connect(max_jobs=1) as storage:
        job = Job("work")
        assert await storage.enqueue_many([job, job]) == 1
