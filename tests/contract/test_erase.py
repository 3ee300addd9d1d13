"""Deleting leaves no trace."""

import pytest

from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, claim_ids, put


@pytest.mark.parametrize("state", JobState)
async def test_a_job_is_removed_from_any_state_without_a_trace(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state)

    assert await storage.delete(job.id) is True

    assert await storage.get(job.id) is None
    assert await storage.list() == []
    assert sum((await storage.get_job_counts()).values()) == 0
    assert sum(await storage.sweep(now=at(10**7))) == 0
    assert await claim_ids(storage) == []


async def test_others_stay(storage: Storage) -> None:
    first, second, third = await put(storage, 3)

    await storage.delete(second.id)

    assert await claim_ids(storage) == [first.id, third.id]


async def test_a_scheduled_job_that_is_stored_again_is_due_once(storage: Storage) -> None:
    await storage.schedule(Job("work"), delay=5, now=NOW)
    [job] = await storage.list()
    await storage.delete(job.id)
    await storage.backend.push([job])

    assert (await storage.sweep(now=at(5))).promoted == 1
    assert await claim_ids(storage) == [job.id]


async def test_there_may_be_no_such_job(storage: Storage) -> None:
    [job] = await put(storage)

    assert await storage.delete("no such job") is False
    assert [await storage.delete(job.id), await storage.delete(job.id)] == [True, False]


async def test_a_deleted_job_that_runs_is_not_handed_out_again(storage: Storage) -> None:
    [job] = await put(storage)
    await claim(storage, lease=10)
    await storage.delete(job.id)

    assert (await storage.sweep(now=at(11))).reclaimed == 0
    assert await claim_ids(storage, now=11) == []


async def test_a_deleted_jobs_lock_goes_with_it(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_job_lock(job.id, "owner", 60, now=NOW)
    await storage.delete(job.id)

    await storage.enqueue(job)

    assert await storage.try_acquire_job_lock(job.id, "another", 60, now=NOW) is True


@pytest.mark.parametrize("times", [2, 5])
async def test_a_job_deleted_and_stored_again_and_again_is_there_once(storage: Storage, times: int) -> None:
    [other] = await put(storage)
    [job] = await put(storage)
    for _ in range(times):
        await storage.delete(job.id)
        await storage.enqueue(job)

    assert [found.id for found in await storage.get_available_jobs()] == [other.id, job.id]
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 2
    assert await claim_ids(storage) == [other.id, job.id]
