"""A large `enqueue_many` is copied into the table: all or none, each id once, and counted exactly."""

import asyncio
from collections import Counter

import pytest

from qml_nb import Job, JobState
from qml_nb.errors import QueueFull, StorageUnavailable
from qml_nb.retry import RetryPolicy
from qml_nb.servers import LocalServer
from qml_nb.storage.storage import Storage
from tests.contract.states import bring_to, claim_ids, ids
from tests.postgres.wire import listening

MANY = 1_200


def jobs_of_all_kinds(many: int = MANY) -> list[Job]:
    return [
        Job(
            f"method {number % 7}",
            [number, "ü\\N\t\n"],
            {"k": None},
            queue=f"queue {number % 3}",
            priority=number % 5,
            timeout=1.5 if number % 2 else None,
            job_type="kind" if number % 3 else None,
            metadata={"m": [number]},
            retry=RetryPolicy.fixed(number) if number % 4 == 0 else None,
        )
        for number in range(many)
    ]


async def test_what_was_copied_comes_back_as_it_was(storage) -> None:
    jobs = jobs_of_all_kinds()
    assert await storage.enqueue_many(reversed(jobs)) == MANY
    assert await storage.backend.get(ids(jobs)) == jobs
    assert await claim_ids(storage, MANY) == ids(sorted(jobs, key=lambda job: (-job.priority, job.id)))


async def test_copied_jobs_are_counted_by_queue(storage) -> None:
    await storage.enqueue_many(jobs_of_all_kinds())
    counts = {queue: states[JobState.ENQUEUED] for queue, states in (await storage.get_queue_counts()).items()}
    assert counts == {"queue 0": 400, "queue 1": 400, "queue 2": 400}


async def test_copied_jobs_wake_who_waits(storage) -> None:
    waiting = [asyncio.create_task(storage.wait([f"queue {number}"], timeout=30)) for number in range(3)]
    await asyncio.sleep(0.05)
    await storage.enqueue_many(jobs_of_all_kinds())
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [True] * 3


@pytest.mark.parametrize("state", JobState)
async def test_an_id_that_was_there_in_any_state_is_left_as_it_is(storage, state) -> None:
    known = await bring_to(storage, state, queue="apart")
    jobs = jobs_of_all_kinds()
    assert await storage.enqueue_many([*jobs, Job("again", id=known.id)]) == MANY
    assert await storage.get(known.id) == known
    counts = await storage.get_job_counts()
    assert counts[state] == 1 + (MANY if state is JobState.ENQUEUED else 0)
    assert sum(counts.values()) == MANY + 1


async def test_of_equal_ids_in_one_call_the_first_is_stored(storage) -> None:
    jobs = jobs_of_all_kinds()
    assert await storage.enqueue_many([*jobs, Job("again", id=jobs[3].id)]) == MANY
    assert await storage.get(jobs[3].id) == jobs[3]


async def test_two_copies_of_the_same_jobs_at_once_store_each_once(storage) -> None:
    jobs = jobs_of_all_kinds()
    stored = await asyncio.gather(*(storage.enqueue_many(some) for some in (jobs, jobs[::-1], jobs[600:])))
    assert sum(stored) == MANY
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == MANY == len(await claim_ids(storage, MANY))


async def test_a_large_call_that_fails_half_way_stores_nothing(storage, schema, direct) -> None:
    """A row that the table refuses stands for whatever ends a transaction."""
    jobs = jobs_of_all_kinds(3_000)
    await direct.execute(f"alter table {schema}.qml_jobs add check (priority <> 77)")
    with pytest.raises(StorageUnavailable, match="refuses"):
        await storage.enqueue_many([*jobs, Job("bad", priority=77)])
    assert await storage.list() == []
    assert sum((await storage.get_job_counts()).values()) == 0
    assert await storage.enqueue_many(jobs) == 3_000


async def test_a_caller_cancelled_in_the_middle_stores_all_or_none_and_harms_no_other(storage) -> None:
    for number in range(20):
        jobs = jobs_of_all_kinds()
        call = asyncio.create_task(storage.enqueue_many(jobs))
        await asyncio.sleep(number * 0.001)
        call.cancel()
        await asyncio.wait([call])
        there = Counter(job is None for job in await storage.backend.get(ids(jobs)))
        assert len(there) == 1
        assert await storage.enqueue_many(jobs) in (0, MANY)
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 20 * MANY


async def copies(storage: Storage, talkative: LocalServer, jobs: list[Job]) -> int:
    """How many statements of a call were a COPY."""
    with listening(talkative) as asked:
        await storage.enqueue_many(jobs)
    return sum("COPY" in statement for statement in asked)


async def test_only_jobs_without_a_key_for_queues_without_a_bound_are_copied(connect, talkative) -> None:
    storage = await connect(talkative.url)
    keyed = Job("work", unique_key="key")
    assert await copies(storage, talkative, jobs_of_all_kinds()) == 1
    assert await copies(storage, talkative, [*jobs_of_all_kinds(), keyed]) == 0
    await storage.configure_queue("elsewhere", max_waiting=1)
    assert await copies(storage, talkative, jobs_of_all_kinds()) == 1
    assert await storage.backend.holders(["key"]) == [keyed.id]
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 3 * MANY + 1


async def test_of_a_large_call_with_keys_each_key_is_taken_once(storage) -> None:
    jobs = [Job("work", unique_key=f"key {number % 700}") for number in range(MANY)]
    assert await storage.enqueue_many(jobs) == 700
    assert await storage.enqueue_many(jobs[::-1]) == 0
    assert await storage.backend.holders([f"key {number}" for number in range(700)]) == ids(jobs[:700])


@pytest.mark.parametrize("when_full", ["reject", "drop_oldest"])
async def test_a_large_call_keeps_to_the_bound_of_a_queue(storage, when_full) -> None:
    jobs = jobs_of_all_kinds()
    await storage.configure_queue("queue 1", max_waiting=300, when_full=when_full)
    if when_full == "reject":
        with pytest.raises(QueueFull, match="queue 'queue 1' holds max_waiting=300 waiting jobs, so 400 more"):
            await storage.enqueue_many(jobs)
        assert await storage.list() == []
    else:
        assert await storage.enqueue_many(jobs) == MANY
        oldest = sorted((job for job in jobs if job.queue == "queue 1"), key=lambda job: (job.priority, job.id))
        assert ids(await storage.list("deleted", limit=MANY)) == sorted(ids(oldest[:100]), reverse=True)
