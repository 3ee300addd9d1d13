"""Locks: on one job, against claims by others, and by name."""

import asyncio
from typing import Any

import pytest

from qml_nb.errors import InvalidValue, JobNotFound
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, claim_ids, ids, put
from tests.contract.threads import in_threads

HOUR = 3600

# -- the lock of a job


async def test_of_a_thousand_tasks_one_gets_the_lock(storage: Storage) -> None:
    [job] = await put(storage)

    won = await asyncio.gather(*(storage.try_acquire_job_lock(job.id, f"w{number}") for number in range(1_000)))

    assert sum(won) == 1
    assert await storage.release_job_lock(job.id, f"w{won.index(True)}") is True


async def test_of_several_threads_one_gets_the_lock(storage: Storage, connect: Any) -> None:
    jobs = await put(storage, 100)

    async def acquire(storage: Storage, number: int) -> list[bool]:
        return [await storage.try_acquire_job_lock(job.id, f"w{number}") for job in jobs]

    won = await in_threads(connect, acquire)

    assert [sum(answers) for answers in zip(*won, strict=True)] == [1] * 100


async def test_it_is_not_re_entrant(storage: Storage) -> None:
    [job] = await put(storage)

    assert await storage.try_acquire_job_lock(job.id, "owner", now=NOW) is True
    assert await storage.try_acquire_job_lock(job.id, "owner", now=NOW) is False


async def test_it_is_free_again_once_released(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_job_lock(job.id, "owner", now=NOW)

    assert await storage.release_job_lock(job.id, "another") is False
    assert await storage.try_acquire_job_lock(job.id, "another", now=NOW) is False
    assert await storage.release_job_lock(job.id, "owner") is True
    assert await storage.release_job_lock(job.id, "owner") is False
    assert await storage.try_acquire_job_lock(job.id, "another", now=NOW) is True


async def test_it_is_free_again_exactly_when_its_time_is_up(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_job_lock(job.id, "owner", 10, now=NOW)

    assert await storage.try_acquire_job_lock(job.id, "another", 10, now=at(9.999)) is False
    assert await storage.try_acquire_job_lock(job.id, "another", 10, now=at(10)) is True
    assert await storage.release_job_lock(job.id, "owner") is False


async def test_a_locked_job_is_passed_over_by_others_and_keeps_its_place(storage: Storage) -> None:
    jobs = await put(storage, 5)
    for job in (jobs[0], jobs[2]):
        await storage.try_acquire_job_lock(job.id, "owner", HOUR, now=NOW)

    assert await claim_ids(storage, 2) == ids([jobs[1], jobs[3]])
    await storage.release_job_lock(jobs[2].id, "owner")
    assert await claim_ids(storage) == ids([jobs[2], jobs[4]])
    await storage.release_job_lock(jobs[0].id, "owner")
    assert await claim_ids(storage) == ids(jobs[:1])


async def test_whoever_holds_the_lock_may_claim_the_job(storage: Storage) -> None:
    first, second = await put(storage, 2)
    await storage.try_acquire_job_lock(first.id, "owner", HOUR, now=NOW)

    claimed = await storage.fetch_available_jobs_atomic("owner", 2, now=NOW)

    assert ids(claimed) == ids([first, second])


async def test_a_lock_whose_time_is_up_hinders_no_claim(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_job_lock(job.id, "owner", 10, now=NOW)

    assert await claim_ids(storage, now=9.999) == []
    assert await claim_ids(storage, now=10) == [job.id]


async def test_a_locked_job_is_counted_and_not_shown_as_available(storage: Storage) -> None:
    locked, free = await put(storage, 2)
    await storage.try_acquire_job_lock(locked.id, "owner", HOUR)

    assert ids(await storage.get_available_jobs()) == [free.id]
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 2


async def test_a_locked_job_is_no_work_to_wait_for(storage: Storage) -> None:
    """Else a server would claim, find nothing, and be told at once to claim again."""
    [job] = await put(storage)
    await storage.try_acquire_job_lock(job.id, "owner", HOUR)

    assert await storage.wait(timeout=0) is False
    await storage.release_job_lock(job.id, "owner")
    assert await storage.wait(timeout=0) is True


async def test_a_job_that_another_worker_runs_can_not_be_locked(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage, "worker")

    assert await storage.try_acquire_job_lock(claimed.id, "another", now=NOW) is False
    assert await storage.try_acquire_job_lock(claimed.id, "worker", now=NOW) is True


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PROCESSING])
async def test_a_job_that_nobody_runs_can_be_locked_in_any_state(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state)

    assert await storage.try_acquire_job_lock(job.id, "owner", now=NOW) is True


async def test_a_lock_changes_nothing_about_the_job(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_job_lock(job.id, "owner", now=NOW)

    assert await storage.get(job.id) == job
    assert await storage.cancel(job.id, now=NOW) is True


async def test_a_job_that_is_not_there_can_not_be_locked(storage: Storage) -> None:
    with pytest.raises(JobNotFound, match="no job 'no such job' in storage"):
        await storage.try_acquire_job_lock("no such job", "owner")

    assert await storage.release_job_lock("no such job", "owner") is False


# -- named locks


async def test_of_many_who_want_a_named_lock_one_gets_it(storage: Storage) -> None:
    won = await asyncio.gather(*(storage.try_acquire_lock("nightly", f"w{number}") for number in range(200)))

    assert sum(won) == 1


async def test_the_holder_lets_a_named_lock_run_on(storage: Storage) -> None:
    assert await storage.try_acquire_lock("nightly", "owner", 10, now=NOW) is True
    assert await storage.try_acquire_lock("nightly", "owner", 10, now=at(5)) is True

    assert await storage.try_acquire_lock("nightly", "another", 10, now=at(14.999)) is False
    assert await storage.try_acquire_lock("nightly", "another", 10, now=at(15)) is True
    assert await storage.try_acquire_lock("nightly", "owner", 10, now=at(16)) is False


async def test_only_the_holder_releases_a_named_lock(storage: Storage) -> None:
    await storage.try_acquire_lock("nightly", "owner")

    assert await storage.release_lock("nightly", "another") is False
    assert await storage.release_lock("nightly", "owner") is True
    assert await storage.release_lock("nightly", "owner") is False
    assert await storage.try_acquire_lock("nightly", "another") is True


async def test_named_locks_are_independent_of_each_other_and_of_jobs(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_lock("a", "owner")

    assert await storage.try_acquire_lock("b", "another") is True
    assert await storage.try_acquire_lock(job.id, "another") is True
    assert await storage.try_acquire_job_lock(job.id, "owner") is True


async def test_a_sweep_leaves_locks_that_hold(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.try_acquire_lock("nightly", "owner", 10, now=NOW)
    await storage.try_acquire_job_lock(job.id, "owner", 10, now=NOW)

    await storage.sweep(now=at(9.999))

    assert await storage.try_acquire_lock("nightly", "another", now=at(9.999)) is False
    assert await storage.try_acquire_job_lock(job.id, "another", now=at(9.999)) is False


@pytest.mark.parametrize(("name", "owner", "timeout"), [("", "w", 1), ("n", "", 1), ("n", "w", 0), ("n", "w", -1)])
async def test_bad_arguments_are_refused(storage: Storage, name: str, owner: str, timeout: float) -> None:
    job = Job("work")
    await storage.enqueue(job)

    with pytest.raises(InvalidValue):
        await storage.try_acquire_lock(name, owner, timeout)
    if name:
        with pytest.raises(InvalidValue):
            await storage.try_acquire_job_lock(job.id, owner, timeout)
