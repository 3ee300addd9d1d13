"""Jobs go out: priority, then age; each to one worker only, and none forgotten."""

import random
from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import ALL, bring_to, claim, claim_ids, ids, put


async def test_claim_returns_the_job_as_it_is_stored_from_then_on(storage: Storage) -> None:
    [job] = await put(storage, timeout=5)

    claimed = await storage.fetch_and_lock_job("worker", lease=10, now=NOW)

    assert claimed is not None
    assert claimed == await storage.get(job.id)
    assert (claimed.state, claimed.attempt, claimed.worker_id) == (JobState.PROCESSING, 1, "worker")
    assert (claimed.started_at, claimed.lease_until) == (NOW, at(10))
    assert (claimed.args_json, claimed.timeout, claimed.created_ts) == (job.args_json, job.timeout, job.created_ts)


async def test_claim_of_nothing_is_none(storage: Storage) -> None:
    assert await storage.fetch_and_lock_job("worker") is None
    assert await storage.fetch_available_jobs_atomic("worker") == []
    assert await storage.fetch_and_lock_job("worker", ["no such queue"]) is None


async def test_older_jobs_come_first(storage: Storage) -> None:
    jobs = await put(storage, 20)

    assert await claim_ids(storage) == ids(jobs)


async def test_age_is_the_instant_of_making_not_of_storing(storage: Storage) -> None:
    jobs = [Job("work") for _ in range(20)]
    for job in random.Random(1).sample(jobs, 20):
        await storage.enqueue(job)

    assert await claim_ids(storage) == ids(jobs)


async def test_higher_priority_comes_first_over_the_whole_range(storage: Storage) -> None:
    priorities = [0, -(2**31), 5, 2**31 - 1, -1, 1, 10, 0]
    jobs = [Job("work", priority=priority) for priority in priorities]
    await storage.enqueue_many(jobs)

    expected = sorted(jobs, key=lambda job: (-job.priority, job.id))
    assert await claim_ids(storage) == ids(expected)


async def test_priority_and_age_hold_over_several_queues(storage: Storage) -> None:
    dice = random.Random(2)
    jobs = [Job("work", queue=dice.choice("abc"), priority=dice.randrange(3)) for _ in range(60)]
    await storage.enqueue_many(jobs)

    expected = sorted((job for job in jobs if job.queue != "c"), key=lambda job: (-job.priority, job.id))
    assert await claim_ids(storage, 25, ["b", "a"]) == ids(expected[:25])
    assert await claim_ids(storage, ALL, ["a", "b"]) == ids(expected[25:])


async def test_no_queues_named_means_all(storage: Storage) -> None:
    jobs = [Job("work", queue=queue) for queue in ("a", "b", "c")]
    await storage.enqueue_many(jobs)

    assert await claim_ids(storage, 1, []) == ids(jobs[:1])
    assert await claim_ids(storage) == ids(jobs[1:])


async def test_only_the_queues_asked_for_are_served(storage: Storage) -> None:
    await put(storage, queue="a")
    [wanted] = await put(storage, queue="b")

    assert await claim_ids(storage, queues=["b", "b", "nobody's"]) == [wanted.id]
    assert await claim_ids(storage, queues=["b"]) == []


async def test_queue_names_may_be_any_text(storage: Storage) -> None:
    names = ["a b", "ü", "queue:{x}", "%s", "'; drop table jobs; --", "😀", "*", "a\nb", "x" * 255]
    jobs = [Job("work", queue=name) for name in names]
    await storage.enqueue_many(jobs)

    for job in jobs:
        assert await claim_ids(storage, queues=[job.queue]) == [job.id]


@pytest.mark.parametrize("limit", [1, 7, 30, 31])
async def test_no_more_than_the_limit_come_at_once(storage: Storage, limit: int) -> None:
    jobs = await put(storage, 30)

    assert await claim_ids(storage, limit) == ids(jobs[:limit])
    assert await claim_ids(storage) == ids(jobs[limit:])


async def test_only_enqueued_jobs_are_claimed(storage: Storage) -> None:
    for state in JobState:
        if state is not JobState.ENQUEUED:
            await bring_to(storage, state)

    assert await claim_ids(storage) == []


async def test_a_job_changed_while_it_waits_is_claimed_by_its_new_place(storage: Storage) -> None:
    first, second, third = await put(storage, 3)
    await storage.update(third.replace(priority=1))
    await storage.update(first.replace(queue="elsewhere"))

    assert await claim_ids(storage, queues=["default"]) == [third.id, second.id]
    assert await claim_ids(storage) == [first.id]


BAD: list[tuple[str, Any]] = [
    *[("worker", value) for value in ("", None, "a\0")],
    *[("queues", value) for value in ("email", [""], 5)],
    *[("lease", value) for value in (0, -1, float("inf"), "5")],
    *[("now", value) for value in (5, NOW.replace(tzinfo=None))],
]


@pytest.mark.parametrize(("how", "bad"), BAD)
async def test_a_bad_argument_is_refused_and_claims_nothing(storage: Storage, how: str, bad: Any) -> None:
    [job] = await put(storage)

    with pytest.raises(InvalidValue, match=f"expected {how} to"):
        await storage.fetch_and_lock_job(**{"worker": "w"} | {how: bad})

    assert await storage.get(job.id) == job


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, 2**31])
async def test_a_bad_limit_is_refused(storage: Storage, limit: Any) -> None:
    with pytest.raises(InvalidValue, match="expected limit to be"):
        await storage.fetch_available_jobs_atomic("worker", limit)


async def test_a_server_claims_by_the_short_way_what_a_fetch_would_give(storage: Storage) -> None:
    jobs = await put(storage, 3)

    claimed = await storage.claim("worker", ("default",), 2, 10.0, now=NOW.timestamp())

    assert ids(claimed) == ids(jobs[:2])
    assert claimed[0] == await storage.get(jobs[0].id)
    assert (claimed[0].worker_id, claimed[0].attempt, claimed[0].lease_until) == ("worker", 1, at(10))
    assert storage.totals.claimed == 2


# -- jobs that come back keep the place that their age gives them


async def test_a_promoted_job_keeps_its_age(storage: Storage) -> None:
    before, scheduled, after = Job("work"), Job("work"), Job("work")
    await storage.enqueue_many([before, after])
    await storage.schedule(scheduled, at=at(5))
    await storage.sweep(now=at(5))

    assert await claim_ids(storage) == ids([before, scheduled, after])


async def test_a_retried_job_keeps_its_age(storage: Storage) -> None:
    first, second, third = await put(storage, 3)
    claims = await storage.fetch_available_jobs_atomic("worker", 2, now=NOW)
    await storage.retry(claims[1], 5, now=NOW)
    await storage.retry(claims[0], 9, now=NOW)
    await storage.sweep(now=at(5))
    await storage.sweep(now=at(9))

    assert await claim_ids(storage) == ids([first, second, third])


async def test_a_job_handed_back_keeps_its_age(storage: Storage) -> None:
    first, second, third = await put(storage, 3)
    for job in reversed(await storage.fetch_available_jobs_atomic("worker", 2, now=NOW)):
        await storage.hand_back(job, now=NOW)

    assert await claim_ids(storage) == ids([first, second, third])


async def test_a_reclaimed_job_keeps_its_age(storage: Storage) -> None:
    first, second, third = await put(storage, 3)
    await storage.fetch_available_jobs_atomic("worker", 2, lease=10, now=NOW)
    await storage.sweep(now=at(11))

    assert await claim_ids(storage, now=11) == ids([first, second, third])


async def test_a_requeued_job_keeps_its_age_and_its_priority(storage: Storage) -> None:
    first, second, third = await put(storage, 3, priority=3)
    await storage.fail(await claim(storage), "it broke", now=NOW)
    await put(storage, priority=2)
    await storage.requeue(first.id)

    assert await claim_ids(storage, 3) == ids([first, second, third])


# -- attempts


async def test_each_claim_counts_and_saves_one_attempt(storage: Storage) -> None:
    [job] = await put(storage, max_retries=9)

    for attempt in (1, 2, 3):
        claimed = await claim(storage, now=attempt)
        stored = await storage.get(job.id)
        assert stored is not None
        assert (claimed.attempt, stored.attempt) == (attempt, attempt)
        await storage.retry(claimed, 0, now=at(attempt))
        await storage.sweep(now=at(attempt))


async def test_an_attempt_lost_with_its_lease_counts(storage: Storage) -> None:
    await put(storage)
    await claim(storage, lease=10)
    await storage.sweep(now=at(11))

    assert (await claim(storage, now=11)).attempt == 2


async def test_a_job_handed_back_has_not_used_its_attempt(storage: Storage) -> None:
    await put(storage)
    await storage.hand_back(await claim(storage), now=NOW)

    assert (await claim(storage)).attempt == 1


async def test_a_requeued_job_starts_at_its_first_attempt(storage: Storage) -> None:
    failed = await bring_to(storage, JobState.FAILED)
    await storage.requeue(failed.id, now=NOW)

    again = await claim(storage)
    assert (again.attempt, again.error, again.finished_at) == (1, None, None)
