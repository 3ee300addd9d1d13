"""Many jobs are requeued at once: those that a list shows, the newest first."""

from typing import Any

import pytest

from qml_nb.errors import CapacityExceeded, InvalidValue
from qml_nb.job import Job, Outcome
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.conftest import Connect
from tests.contract.states import ALL, bring_to, claim_ids, ids, one_in_each, put


async def fail_all(storage: Storage, jobs: list[Job]) -> list[Job]:
    """Store jobs, and let all of them fail."""
    await storage.enqueue_many(jobs)
    claims = await storage.fetch_available_jobs_atomic("worker", len(jobs), now=NOW)
    assert len(claims) == len(jobs)
    outcomes = [Outcome(job.id, job.claim_id, JobState.FAILED, error="it broke") for job in claims]
    assert all(await storage.settle(outcomes, now=NOW))
    return jobs


async def test_failed_jobs_are_as_good_as_new_again(storage: Storage) -> None:
    jobs = await fail_all(storage, [Job("work") for _ in range(5)])
    others = await one_in_each(storage)

    assert await storage.requeue_all(now=at(9)) == 6

    requeued = [await storage.get(job.id) for job in jobs]
    assert [(job.attempt, job.error, job.run_at) for job in requeued if job] == [(0, None, at(9))] * 5
    expected = ids([*jobs, others[JobState.FAILED], others[JobState.ENQUEUED]])
    assert sorted(await claim_ids(storage, now=9)) == sorted(expected)


@pytest.mark.parametrize(
    ("which", "requeued"),
    [
        ({}, [0, 1, 2, 3]),
        ({"queue": "a"}, [0, 1]),
        ({"method": "send"}, [1, 2]),
        ({"queue": "a", "method": "send"}, [1]),
        ({"queue": "c"}, []),
        ({"limit": 2}, [2, 3]),
        ({"limit": 1, "queue": "a"}, [1]),
        ({"limit": 0}, []),
    ],
    ids=str,
)
async def test_which_ones_can_be_chosen(storage: Storage, which: dict[str, Any], requeued: list[int]) -> None:
    jobs = [Job(method, queue=queue) for method, queue in (("add", "a"), ("send", "a"), ("send", "b"), ("add", "b"))]
    await fail_all(storage, jobs)

    assert await storage.requeue_all(**which) == len(requeued)

    assert ids(await storage.get_available_jobs()) == [jobs[place].id for place in requeued]


@pytest.mark.parametrize("state", JobState)
async def test_jobs_of_another_state_are_moved_where_there_is_such_a_move(storage: Storage, state: JobState) -> None:
    made = await one_in_each(storage)
    movable = state in (JobState.FAILED, JobState.SCHEDULED, JobState.AWAITING_RETRY)

    assert await storage.requeue_all(state) == movable

    waiting = [JobState.ENQUEUED] + ([state] if movable else [])
    assert sorted(ids(await storage.get_available_jobs())) == sorted(made[state].id for state in waiting)


async def test_more_than_a_page_is_requeued(storage: Storage) -> None:
    jobs = await fail_all(storage, [Job("work") for _ in range(1_050)])

    assert await storage.requeue_all("failed", limit=1_020) == 1_020
    assert ids(await storage.list("failed")) == ids(jobs[29::-1])

    assert await storage.requeue_all("failed") == 30


async def test_those_that_can_not_be_moved_do_not_count_towards_the_limit(storage: Storage) -> None:
    [free] = await fail_all(storage, [Job("work")])
    for _ in range(3):
        await bring_to(storage, JobState.FAILED, unique_key="key")
    await storage.enqueue(Job("work", unique_key="key", queue="other"))

    assert await storage.requeue_all(limit=1) == 1

    assert await claim_ids(storage, ALL, ["default"]) == [free.id]


async def test_where_there_is_no_room_none_of_a_page_comes_back(connect: Connect) -> None:
    async with await connect(max_jobs=2) as storage:
        await fail_all(storage, [Job("work") for _ in range(2)])
        await put(storage)

        with pytest.raises(CapacityExceeded):
            await storage.requeue_all()

        assert (await storage.get_job_counts())[JobState.FAILED] == 2
        assert await storage.requeue_all(limit=1) == 1


async def test_a_state_that_is_none_is_refused(storage: Storage) -> None:
    with pytest.raises(InvalidValue, match="expected state to be one of"):
        await storage.requeue_all("broken")
