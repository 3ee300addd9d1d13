"""No two unfinished jobs share a unique key, and with a window no two of that time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qml_nb.errors import CapacityExceeded, InvalidValue, QueueFull
from qml_nb.job import Job
from qml_nb.states import CRASH_ATTEMPTS, LIVE, JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.conftest import Connect
from tests.contract.states import bring_to, claim, claim_ids, ids, put
from tests.contract.threads import in_threads

FINISHED = [state for state in JobState if state.is_final]
UNFINISHED = [state for state in JobState if state in LIVE]


def keyed(key: str = "key", **options: Any) -> Job:
    """A new job with a unique key."""
    return Job("work", unique_key=key, **options)


async def holder(storage: Storage, key: str = "key", now: float = 0) -> str | None:
    """The id of the job by which a key is taken."""
    job = await storage.get_unique(key, now=at(now))
    return None if job is None else job.id


async def store(storage: Storage, job: Job, now: float) -> bool:
    """Whether a job is stored at that instant."""
    return await storage.enqueue_many([job], now=at(now)) == 1


# -- while the job is unfinished


async def test_a_second_job_with_the_key_is_not_stored(storage: Storage) -> None:
    first = keyed(queue="a")
    assert await storage.enqueue(first) is True

    assert await storage.enqueue(second := keyed(queue="b", priority=5)) is False
    assert await storage.schedule(keyed(), delay=5) is False
    assert await storage.enqueue_many([keyed(), other := Job("work")]) == 1

    assert await storage.get(second.id) is None
    assert ids(await storage.list()) == [other.id, first.id]
    assert await storage.get_unique("key") == first


async def test_of_two_in_one_batch_the_first_is_stored(storage: Storage) -> None:
    first, other, second = keyed("a"), keyed("b"), keyed("a")

    assert await storage.enqueue_many([first, other, second]) == 2

    assert await claim_ids(storage) == ids([first, other])


async def test_of_many_callers_at_once_one_is_served(storage: Storage) -> None:
    jobs = [keyed() for _ in range(50)]

    answers = await asyncio.gather(*(storage.enqueue(job) for job in jobs))

    assert sum(answers) == 1
    assert await claim_ids(storage) == [jobs[answers.index(True)].id]


async def test_of_many_connections_one_is_served(storage: Storage, connect: Connect) -> None:
    async def push(storage: Storage, number: int) -> list[bool]:
        return [await storage.enqueue(keyed(f"key {turn}")) for turn in range(25)]

    answers = await in_threads(connect, push)

    assert [sum(answer) for answer in zip(*answers, strict=True)] == [1] * 25
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 25


@pytest.mark.parametrize("state", UNFINISHED)
async def test_the_key_is_taken_in_every_unfinished_state(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state, unique_key="key")

    assert await storage.enqueue(keyed()) is False

    assert await storage.get_unique("key") == job
    assert await storage.list() == [job]


async def lose_leases(storage: Storage, job: Job) -> None:
    for attempt in range(CRASH_ATTEMPTS):
        await storage.fetch_and_lock_job("worker", lease=10, now=at(100 * attempt))
        await storage.sweep(now=at(100 * attempt + 10))


async def claimed(storage: Storage, job: Job) -> Job:
    running = await claim(storage)
    assert running.id == job.id
    return running


async def drop(storage: Storage, job: Job) -> None:
    await storage.configure_queue("default", max_waiting=1, when_full="drop_oldest")
    await put(storage, 2, priority=1)


ENDS: dict[str, Callable[[Storage, Job], Awaitable[Any]]] = {
    "complete": lambda storage, job: complete(storage, job),
    "fail": lambda storage, job: fail(storage, job),
    "lose leases": lose_leases,
    "cancel": lambda storage, job: storage.cancel(job.id, now=NOW),
    "delete": lambda storage, job: storage.delete(job.id),
    "drop": drop,
}


async def complete(storage: Storage, job: Job) -> None:
    assert await storage.complete(await claimed(storage, job), now=NOW)


async def fail(storage: Storage, job: Job) -> None:
    assert await storage.fail(await claimed(storage, job), "it broke", now=NOW)


@pytest.mark.parametrize("way", ENDS)
async def test_the_key_is_free_again_however_the_job_ends(storage: Storage, way: str) -> None:
    await storage.enqueue(first := keyed())

    await ENDS[way](storage, first)

    assert await storage.get_unique("key") is None
    assert await storage.enqueue(second := keyed(queue="other")) is True
    assert await holder(storage) == second.id


@pytest.mark.parametrize("state", JobState)
async def test_a_deleted_job_of_any_state_holds_no_key(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state, unique_key="key", unique_for=1e9)

    await storage.delete(job.id)

    assert await holder(storage) is None
    assert await storage.enqueue(job if state is JobState.ENQUEUED else keyed()) is True


async def test_a_job_that_runs_again_holds_its_key_all_the_while(storage: Storage) -> None:
    await storage.enqueue(job := keyed())
    await storage.hand_back(await claim(storage), now=NOW)
    assert await storage.enqueue(keyed()) is False
    await storage.retry(await claim(storage), 0, now=NOW)
    assert await storage.enqueue(keyed()) is False
    await storage.sweep(now=NOW)
    await claim(storage, lease=10)
    await storage.sweep(now=at(10))

    assert await storage.enqueue(keyed()) is False
    assert await holder(storage) == job.id


async def test_the_end_of_a_job_frees_no_key_of_another_one(storage: Storage) -> None:
    await storage.enqueue(first := keyed())
    await storage.cancel(first.id)
    await storage.enqueue(second := keyed())

    await storage.delete(first.id)

    assert await holder(storage) == second.id
    assert await storage.enqueue(keyed()) is False


async def test_a_resend_is_answered_false_and_leaves_the_key(storage: Storage) -> None:
    await storage.enqueue(job := keyed())

    assert await storage.enqueue(job) is False
    assert await storage.enqueue(Job("work", id=job.id, unique_key="another")) is False

    assert (await holder(storage), await holder(storage, "another")) == (job.id, None)


KEYS = ["a", "ü😀", "a b", "x" * 255, "😀" * 255, "{a}:b", "%s'; --", "a\nb", "1"]


async def test_a_key_is_any_text_and_comes_back_equal(storage: Storage) -> None:
    jobs = [keyed(key, unique_for=1_000.0 * number or None) for number, key in enumerate(KEYS)]
    await storage.enqueue_many(jobs)

    assert [await storage.get_unique(key) for key in KEYS] == jobs
    assert await storage.fetch_available_jobs_atomic("worker", 1) == [await storage.get(jobs[0].id)]
    assert [job.unique_key for job in await storage.list()] == KEYS[::-1]
    assert [job.unique_for for job in await storage.list()] == [
        *(1_000.0 * number for number in range(len(KEYS) - 1, 0, -1)),
        None,
    ]


@pytest.mark.parametrize("key", ["", None, 5, "a\0b", "x" * 256])
async def test_what_is_no_key_is_refused(storage: Storage, key: Any) -> None:
    with pytest.raises(InvalidValue, match="expected key to"):
        await storage.get_unique(key)


async def test_what_is_not_stored_takes_no_key(connect: Connect) -> None:
    async with await connect(max_jobs=2) as storage:
        await storage.configure_queue("default", max_waiting=1)
        await put(storage)

        for attempt in (storage.enqueue(keyed()), storage.enqueue_many([keyed()])):
            with pytest.raises(QueueFull):
                await attempt
        with pytest.raises(CapacityExceeded):
            await storage.enqueue_many([keyed(queue="b"), Job("work", queue="b")])

        assert await holder(storage) is None
        assert await storage.enqueue(keyed(queue="b")) is True


async def test_a_full_storage_and_a_full_queue_answer_false_where_the_key_is_taken(connect: Connect) -> None:
    async with await connect(max_jobs=1) as storage:
        await storage.configure_queue("default", max_waiting=1)
        await storage.enqueue(keyed())

        assert await storage.enqueue(keyed()) is False
        assert await storage.enqueue_many([keyed(), keyed()]) == 0


async def test_jobs_of_one_key_take_one_place(connect: Connect) -> None:
    async with await connect(max_jobs=2) as storage:
        await storage.configure_queue("default", max_waiting=2)

        assert await storage.enqueue_many([keyed(), keyed(), keyed(), Job("work")]) == 2


async def test_an_update_leaves_the_key(storage: Storage) -> None:
    await storage.enqueue(job := keyed())
    for changed in (Job("other", id=job.id), Job("other", id=job.id, unique_key="another", unique_for=5.0)):
        updated = await storage.update(changed)
        assert (updated.method, updated.unique_key, updated.unique_for) == ("other", "key", None)

    assert (await holder(storage), await holder(storage, "another")) == (job.id, None)
    await storage.complete(await claim(storage), now=NOW)
    assert await holder(storage) is None


# -- with a window


async def test_a_window_lasts_from_when_the_job_was_stored(storage: Storage) -> None:
    assert await store(storage, first := keyed(unique_for=10.0), 0)

    assert not await store(storage, keyed(), 9.75)
    assert await holder(storage, now=9.75) == first.id
    assert await holder(storage, now=10) is None
    assert await store(storage, second := keyed(unique_for=10.0), 10)

    assert await holder(storage, now=10) == second.id
    assert not await store(storage, keyed(), 19.75)


async def test_a_window_of_a_scheduled_job_lasts_from_when_it_was_stored_too(storage: Storage) -> None:
    await storage.schedule(keyed(unique_for=10.0), delay=100, now=NOW)

    assert not await store(storage, keyed(), 9.75)
    assert await store(storage, keyed(), 10)


@pytest.mark.parametrize("way", [way for way in ENDS if way != "delete"])
async def test_a_window_lasts_beyond_the_end_of_the_job(storage: Storage, way: str) -> None:
    await store(storage, first := keyed(unique_for=1_000.0), 0)

    await ENDS[way](storage, first)

    assert await holder(storage, now=999.75) == first.id
    assert not await store(storage, keyed(queue="b"), 999.75)
    assert await store(storage, keyed(queue="b"), 1_000)


async def test_a_window_lasts_beyond_the_job_when_that_is_pruned(connect: Connect) -> None:
    async with await connect(completed_job_ttl=5.0) as storage:
        await store(storage, job := keyed(unique_for=10.0), 0)
        await complete(storage, job)
        assert (await storage.sweep(now=at(5))).pruned == 1

        assert await holder(storage, now=9.75) is None  # it is taken, by a job that is there no longer
        assert not await store(storage, keyed(), 9.75)
        await storage.sweep(now=at(10))
        assert await store(storage, keyed(), 10)


async def test_the_end_of_a_job_whose_window_was_over_frees_no_key_of_another_one(storage: Storage) -> None:
    await store(storage, first := keyed(unique_for=10.0), 0)
    await store(storage, second := keyed(priority=-1), 10)

    await storage.complete(await claimed(storage, first), now=at(11))
    assert await holder(storage, now=11) == second.id
    await storage.delete(first.id)

    assert await holder(storage, now=11) == second.id


async def test_a_sweep_frees_no_key_before_its_time(storage: Storage) -> None:
    await store(storage, keyed("a", unique_for=10.0), 0)
    await store(storage, keyed("b"), 0)

    await storage.sweep(now=at(9.75))
    assert [await store(storage, keyed(key), 9.75) for key in "ab"] == [False, False]
    await storage.sweep(now=at(10))

    assert [await store(storage, keyed(key), 10) for key in "ab"] == [True, False]


# -- when a finished job comes back


async def test_a_requeued_job_takes_its_key_again(storage: Storage) -> None:
    job = await bring_to(storage, JobState.FAILED, unique_key="key")

    assert await storage.requeue(job.id) is True

    assert await holder(storage) == job.id
    assert await storage.enqueue(keyed()) is False


@pytest.mark.parametrize("window", [None, 10.0])
async def test_a_job_whose_key_another_one_has_is_not_requeued(storage: Storage, window: float | None) -> None:
    failed = await bring_to(storage, JobState.FAILED, unique_key="key")
    await store(storage, other := keyed(unique_for=window), 0)

    assert await storage.requeue(failed.id, now=at(9)) is False
    assert await storage.get(failed.id) == failed
    assert await holder(storage, now=9) == other.id
    await storage.delete(other.id)

    assert await storage.requeue(failed.id, now=at(9)) is True


async def test_of_failed_jobs_with_one_key_the_newest_is_requeued(storage: Storage) -> None:
    failed = [await bring_to(storage, JobState.FAILED, unique_key="key") for _ in range(3)]
    free = await bring_to(storage, JobState.FAILED)

    assert await storage.requeue_all() == 2

    assert await claim_ids(storage) == [failed[2].id, free.id]


async def test_a_scheduled_job_is_requeued_with_the_key_that_it_has(storage: Storage) -> None:
    job = await bring_to(storage, JobState.SCHEDULED, unique_key="key")

    assert await storage.requeue(job.id) is True

    assert await holder(storage) == job.id


async def test_a_job_with_a_window_comes_back_without_its_key(storage: Storage) -> None:
    await store(storage, first := keyed(unique_for=10.0), 0)
    await fail(storage, first)
    await store(storage, second := keyed(queue="b"), 10)

    assert await storage.requeue(first.id, now=at(11)) is True

    assert await holder(storage, now=11) == second.id
    await storage.cancel(first.id, now=at(12))
    assert await holder(storage, now=12) == second.id


async def test_a_job_whose_window_is_over_begins_no_new_one(storage: Storage) -> None:
    await store(storage, job := keyed(unique_for=10.0), 0)
    await fail(storage, job)

    assert await storage.requeue(job.id, now=at(11)) is True

    assert await holder(storage, now=11) is None


async def test_a_job_that_finds_no_room_takes_no_key(connect: Connect) -> None:
    async with await connect(max_jobs=1) as storage:
        failed = await bring_to(storage, JobState.FAILED, unique_key="key")
        await put(storage)

        with pytest.raises(CapacityExceeded):
            await storage.requeue(failed.id)

        assert await holder(storage) is None
