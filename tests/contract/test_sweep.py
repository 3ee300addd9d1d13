"""Upkeep: due jobs are promoted, lost leases reclaimed, old jobs pruned, each exactly when it is time."""

import asyncio
from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.job import Job
from qml_nb.states import CRASH_ATTEMPTS, LOST_LEASE, JobState
from qml_nb.storage.backend import Swept
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import ALL, bring_to, claim, claim_ids, put

MOMENT = 0.001
"""Well above the resolution of any backend's clock."""


async def state_of(storage: Storage, job: Job) -> JobState | None:
    """Where a job stands; None if it is gone."""
    found = await storage.get(job.id)
    return found and found.state


async def lose_lease(storage: Storage, job: Job, *, now: float) -> Swept:
    """Claim the job at `now` for ten seconds, and let them pass."""
    claimed = await claim(storage, lease=10, now=now)
    assert claimed.id == job.id
    return await storage.sweep(now=at(now + 10 + MOMENT))


async def test_there_may_be_nothing_to_do(storage: Storage) -> None:
    assert await storage.sweep() == Swept(0, 0, 0, 0)


# -- promote


async def test_a_scheduled_job_is_promoted_exactly_when_it_is_due(storage: Storage) -> None:
    job = Job("later")
    await storage.schedule(job, at=at(60))

    assert await storage.sweep(now=at(60 - MOMENT)) == Swept()
    assert await state_of(storage, job) is JobState.SCHEDULED
    assert await storage.sweep(now=at(60)) == Swept(promoted=1)
    assert await state_of(storage, job) is JobState.ENQUEUED


async def test_a_job_that_awaits_its_retry_is_promoted_exactly_when_it_is_due(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.retry(await claim(storage), 60, "it broke", now=NOW)

    assert await storage.sweep(now=at(60 - MOMENT)) == Swept()
    assert await state_of(storage, job) is JobState.AWAITING_RETRY
    assert await storage.sweep(now=at(60)) == Swept(promoted=1)
    assert await state_of(storage, job) is JobState.ENQUEUED


async def test_those_due_first_are_promoted_first(storage: Storage) -> None:
    jobs = [Job("later") for _ in range(4)]
    for job, due in zip(jobs, (40, 10, 30, 20), strict=True):
        await storage.schedule(job, at=at(due))

    assert await storage.sweep(2, now=at(100)) == Swept(promoted=2)

    assert await claim_ids(storage) == [jobs[1].id, jobs[3].id]


@pytest.mark.parametrize("how", ["cancel", "delete", "requeue"])
async def test_what_left_the_calendar_is_not_promoted(storage: Storage, how: str) -> None:
    job = await bring_to(storage, JobState.SCHEDULED)
    leave = {"cancel": storage.cancel, "requeue": storage.requeue}
    await (storage.delete(job.id) if how == "delete" else leave[how](job.id, now=NOW))
    before = await storage.get(job.id)

    assert (await storage.sweep(now=at(100))).promoted == 0

    assert await storage.get(job.id) == before


async def test_an_updated_job_is_promoted_once_and_as_it_is_now(storage: Storage) -> None:
    job = await bring_to(storage, JobState.SCHEDULED)
    await storage.update(job.replace(queue="elsewhere"))

    assert (await storage.sweep(now=at(60))).promoted == 1

    assert await claim_ids(storage, queues=["elsewhere"]) == [job.id]


# -- reclaim


async def test_a_lease_is_lost_exactly_when_it_is_over(storage: Storage) -> None:
    [job] = await put(storage)
    await claim(storage, lease=10)

    assert await storage.sweep(now=at(10 - MOMENT)) == Swept()
    assert await state_of(storage, job) is JobState.PROCESSING
    assert await storage.sweep(now=at(10)) == Swept(reclaimed=1)
    assert await state_of(storage, job) is JobState.ENQUEUED


async def test_a_reclaimed_job_belongs_to_nobody(storage: Storage) -> None:
    [job] = await put(storage)
    await lose_lease(storage, job, now=0)

    found = await storage.get(job.id)
    assert found is not None
    assert (found.worker_id, found.lease_until, found.attempt, found.finished_at) == (None, None, 1, None)


@pytest.mark.parametrize("max_retries", [0, 1, 2, 3, 5])
async def test_a_job_that_loses_lease_after_lease_ends_failed(storage: Storage, max_retries: int) -> None:
    [job] = await put(storage, max_retries=max_retries)
    attempts = max(max_retries + 1, CRASH_ATTEMPTS)

    for attempt in range(1, attempts):
        assert await lose_lease(storage, job, now=100 * attempt) == Swept(reclaimed=1)
    assert await lose_lease(storage, job, now=100 * attempts) == Swept(failed=1)

    found = await storage.get(job.id)
    assert found is not None
    assert (found.state, found.attempt, found.error) == (JobState.FAILED, attempts, LOST_LEASE)
    assert (found.lease_until, found.finished_at) == (None, at(100 * attempts + 10 + MOMENT))


async def test_a_failure_and_lost_leases_use_the_same_attempts(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.retry(await claim(storage), 0, "it broke", now=NOW)
    await storage.sweep(now=NOW)
    await lose_lease(storage, job, now=100)

    assert await lose_lease(storage, job, now=200) == Swept(failed=1)


async def test_a_job_failed_by_lost_leases_can_be_requeued(storage: Storage) -> None:
    [job] = await put(storage)
    for attempt in range(CRASH_ATTEMPTS):
        await lose_lease(storage, job, now=100 * attempt)

    assert await storage.requeue(job.id) is True
    assert (await claim(storage)).attempt == 1


# -- prune


@pytest.mark.parametrize(("state", "ttl"), [(JobState.SUCCEEDED, 100), (JobState.DELETED, 100), (JobState.FAILED, 500)])
async def test_a_finished_job_is_pruned_exactly_when_its_time_is_up(connect: Any, state: JobState, ttl: int) -> None:
    async with await connect(completed_job_ttl=100, failed_job_ttl=500) as storage:
        job = await bring_to(storage, state, now=0)

        assert job.expires_at == at(ttl)
        assert await storage.sweep(now=at(ttl - MOMENT)) == Swept()
        assert await storage.get(job.id) == job
        assert await storage.sweep(now=at(ttl)) == Swept(pruned=1)
        assert await storage.get(job.id) is None
        assert sum((await storage.get_job_counts()).values()) == 0


async def test_a_job_failed_by_a_lost_lease_is_pruned_like_any_failed_one(connect: Any) -> None:
    async with await connect(failed_job_ttl=500) as storage:
        [job] = await put(storage)
        for attempt in range(CRASH_ATTEMPTS):
            await lose_lease(storage, job, now=100 * attempt)

        assert (await storage.sweep(now=at(700))).pruned == 0
        assert (await storage.sweep(now=at(711))).pruned == 1


async def test_without_a_ttl_finished_jobs_are_kept(connect: Any) -> None:
    async with await connect(completed_job_ttl=None, failed_job_ttl=None) as storage:
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED):
            assert (await bring_to(storage, state)).expires_at is None

        assert await storage.sweep(now=at(10**9)) == Swept()


async def test_a_finished_job_that_was_updated_is_pruned_in_its_own_time(connect: Any) -> None:
    async with await connect(completed_job_ttl=100) as storage:
        first = await bring_to(storage, JobState.SUCCEEDED, now=0)
        await bring_to(storage, JobState.SUCCEEDED, now=50)
        await storage.update(first.replace(metadata={"seen": True}))

        assert (await storage.sweep(now=at(100))).pruned == 1
        assert await storage.get(first.id) is None


async def test_a_requeued_job_is_not_pruned(connect: Any) -> None:
    async with await connect(failed_job_ttl=100) as storage:
        job = await bring_to(storage, JobState.FAILED)
        await storage.requeue(job.id)

        assert (await storage.sweep(now=at(1_000))).pruned == 0
        assert await claim_ids(storage) == [job.id]


# -- limit, and several sweepers


async def make_work(storage: Storage, many: int) -> None:
    """Leave so many jobs to promote, to reclaim and to prune at +1000."""
    for _ in range(many):
        await bring_to(storage, JobState.SUCCEEDED)
    for _ in range(many):
        await storage.schedule(Job("later"), at=at(500))
    await put(storage, many)
    await storage.fetch_available_jobs_atomic("worker", many, lease=500, now=NOW)


async def test_a_sweep_moves_no_more_than_its_limit_of_each(connect: Any) -> None:
    async with await connect(completed_job_ttl=500) as storage:
        await make_work(storage, 5)

        swept = [await storage.sweep(2, now=at(1_000)) for _ in range(4)]

        assert swept == [Swept(2, 2, 0, 2), Swept(2, 2, 0, 2), Swept(1, 1, 0, 1), Swept()]


async def test_sweepers_at_once_share_the_work_without_a_double(connect: Any) -> None:
    async with await connect(completed_job_ttl=500) as storage:
        await make_work(storage, 50)

        swept = await asyncio.gather(*(storage.sweep(20, now=at(1_000)) for _ in range(10)))

        assert tuple(map(sum, zip(*swept, strict=True))) == Swept(50, 50, 0, 50)
        assert len(await claim_ids(storage, ALL)) == 100


@pytest.mark.parametrize("limit", [0, -1, 1.0, "many", None, False])
async def test_a_bad_limit_is_refused(storage: Storage, limit: Any) -> None:
    with pytest.raises(InvalidValue, match="expected limit to be"):
        await storage.sweep(limit)
