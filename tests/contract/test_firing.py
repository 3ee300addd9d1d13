"""Recurring schedules fire once, whoever looks: the new state and the jobs of a firing are stored together."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from qml_nb.errors import CapacityExceeded
from qml_nb.job import Extras, Job
from qml_nb.retry import RetryPolicy
from qml_nb.states import JobState
from qml_nb.storage.backend import Recurring
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.conftest import Connect
from tests.contract.states import claim_ids, ids, put
from tests.contract.test_wait import waiting, woken
from tests.contract.threads import in_threads

EXTRAS = Extras("key", 60.0, RetryPolicy.linear(1, 0.1, retry_on=[OSError]))


def schedule(name: str = "nightly", next_at: float | None = 0, **fields: Any) -> Recurring:
    """A schedule that is due so many seconds after `NOW`."""
    return Recurring(name, "0 3 * * *", "work", next_ts=None if next_at is None else at(next_at).timestamp(), **fields)


def after(old: Recurring, seconds: float) -> Recurring:
    """The schedule once it has fired."""
    return replace(old, last_ts=old.next_ts, next_ts=at(seconds).timestamp())


async def due(storage: Storage, now: float = 0, limit: int = 100) -> list[str]:
    """The ids of the schedules that are due at that instant."""
    instant, schedules = await storage.backend.due_recurring(limit, now=at(now).timestamp())
    assert instant == at(now).timestamp()
    return [schedule.id for schedule in schedules]


# -- which are due


async def test_none_is_due_where_there_is_none(storage: Storage) -> None:
    assert await due(storage) == []


async def test_one_is_due_from_its_very_instant_on(storage: Storage) -> None:
    await storage.upsert_recurring(schedule(next_at=10))

    assert [await due(storage, now) for now in (9.75, 10, 1e6)] == [[], ["nightly"], ["nightly"]]


async def test_the_earliest_comes_first_and_no_more_than_the_limit(storage: Storage) -> None:
    for name, next_at in (("d", 5), ("a", 7.5), ("c", 0.25), ("b", -1e6), ("e", 100)):
        await storage.upsert_recurring(schedule(name, next_at))

    assert await due(storage, 10) == ["b", "c", "d", "a"]
    assert await due(storage, 10, limit=2) == ["b", "c"]


async def test_one_that_is_off_or_has_no_next_instant_is_never_due(storage: Storage) -> None:
    await storage.upsert_recurring(schedule("off", enabled=False))
    await storage.backend.put_recurring(schedule("never", None))

    assert await due(storage, 1e6) == []


async def test_a_due_one_comes_back_equal(storage: Storage) -> None:
    full = schedule(
        "ü 😀",
        args_json=b"[1.50,[]]",
        kwargs_json=b'{"b":1,"a":{}}',
        queue="reports",
        priority=-3,
        max_retries=4,
        timezone="Europe/Berlin",
        last_ts=1893455700.1,
        misfire="all",
        timeout=1.5,
        metadata_json=b'{"trace":"abc"}',
        job_type="kind",
        extras=EXTRAS,
    )
    await storage.upsert_recurring(full)

    assert (await storage.backend.due_recurring(5, now=at(0).timestamp()))[1] == [full]
    assert await storage.list_recurring() == [full]


async def test_what_is_put_and_removed_is_due_as_it_is_then(storage: Storage) -> None:
    await storage.upsert_recurring(schedule("a", 0))
    await storage.upsert_recurring(schedule("b", 100))
    await storage.upsert_recurring(schedule("a", 100))
    await storage.upsert_recurring(schedule("b", 1))
    assert await due(storage, 5) == ["b"]
    await storage.upsert_recurring(schedule("b", 1, enabled=False))
    assert await due(storage, 5) == []
    await storage.upsert_recurring(schedule("b", 2))
    await storage.remove_recurring("a")

    assert await due(storage, 1_000) == ["b"]


async def test_the_storages_own_time_is_told_and_counts(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.upsert_recurring(schedule("past", -1e9))
    await storage.upsert_recurring(schedule("future", 1e9))

    now, schedules = await storage.backend.due_recurring(5)

    assert abs(now - job.created_ts) < 60
    assert [schedule.id for schedule in schedules] == ["past"]


# -- swapping


async def test_a_swap_stores_the_new_one_and_its_jobs(storage: Storage) -> None:
    old = schedule()
    await storage.upsert_recurring(old)
    jobs = [Job("work", [number], queue="a", priority=number) for number in range(3)]

    assert await storage.backend.swap_recurring(old, after(old, 60), jobs) is True

    assert await storage.list_recurring() == [after(old, 60)]
    assert [await due(storage, now) for now in (59, 60)] == [[], ["nightly"]]
    assert [await storage.get(job.id) for job in jobs] == jobs
    assert await claim_ids(storage) == ids(jobs[::-1])


async def test_a_swap_without_jobs_stores_the_new_one(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())

    assert await storage.backend.swap_recurring(old, after(old, 60)) is True

    assert await storage.list_recurring() == [after(old, 60)]
    assert await storage.list() == []


@pytest.mark.parametrize(
    "stale",
    [
        schedule(next_at=-1),
        schedule(next_at=None),
        schedule(enabled=False),
        schedule(extras=replace(EXTRAS, unique_for=61.0)),
        schedule(args_json=b"[ ]", extras=EXTRAS),
        None,
    ],
    ids=["earlier", "never", "off", "other key", "other bytes", "none"],
)
async def test_a_swap_of_what_is_not_there_does_nothing(storage: Storage, stale: Recurring | None) -> None:
    old = schedule(extras=EXTRAS)
    await storage.upsert_recurring(old)

    assert await storage.backend.swap_recurring(stale, after(old, 60), [Job("work")]) is False

    assert await storage.list_recurring() == [old]
    assert await storage.list() == []


async def test_a_swap_of_one_that_was_removed_does_nothing(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())
    await storage.remove_recurring(old.id)

    assert await storage.backend.swap_recurring(old, after(old, 60), [Job("work")]) is False

    assert await storage.list_recurring() == []
    assert await storage.list() == []


async def test_a_swap_for_none_stores_a_new_one(storage: Storage) -> None:
    new = schedule(extras=EXTRAS)

    assert await storage.backend.swap_recurring(None, new, [job := Job("work")]) is True
    assert await storage.backend.swap_recurring(None, new, [Job("work")]) is False

    assert await storage.list_recurring() == [new]
    assert await storage.list() == [job]
    assert await due(storage) == [new.id]


async def test_of_many_who_swap_one_succeeds(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())

    answers = await asyncio.gather(
        *(storage.backend.swap_recurring(old, after(old, 60), [Job("work")]) for _ in range(20))
    )

    assert sorted(answers) == [False] * 19 + [True]
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 1


async def test_of_many_connections_that_fire_one_does_each_time(storage: Storage, connect: Connect) -> None:
    for name in "ab":
        await storage.upsert_recurring(schedule(name))

    async def fire(storage: Storage, number: int) -> int:
        fired = 0
        for turn in range(8):
            _, schedules = await storage.backend.due_recurring(5, now=at(turn).timestamp())
            for old in schedules:
                fired += await storage.backend.swap_recurring(
                    old, after(old, turn + 1), [Job("work", metadata={"fires": [old.id, turn]})]
                )
        return fired

    assert sum(await in_threads(connect, fire)) == 16
    fires = [tuple(job.metadata["fires"]) for job in await storage.list()]
    assert sorted(fires) == [(name, turn) for name in "ab" for turn in range(8)]


# -- its jobs come in as others do


async def test_the_jobs_wake_who_waits(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())
    task = await waiting(storage, ["a"])

    await storage.backend.swap_recurring(old, after(old, 60), [Job("work", queue="a")])

    assert await woken(task) is True


async def test_a_job_that_is_there_and_one_whose_key_is_taken_are_left_out(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())
    there, keyed = Job("work"), Job("work", unique_key="key")
    await storage.enqueue_many([there, keyed])
    new = Job("work", unique_key="another")

    jobs = [Job("other", id=there.id), Job("work", unique_key="key"), new, Job("work", unique_key="another")]
    assert await storage.backend.swap_recurring(old, after(old, 60), jobs) is True

    assert await storage.list() == [new, keyed, there]
    assert await storage.get_unique("another") == new


async def test_a_window_lasts_from_the_swap(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())
    job = Job("work", unique_key="key", unique_for=10.0)

    await storage.backend.swap_recurring(old, after(old, 60), [job], now=NOW.timestamp())

    assert await storage.get_unique("key", now=at(9.75)) == job
    assert await storage.get_unique("key", now=at(10)) is None


async def test_a_scheduled_job_waits_for_its_instant(storage: Storage) -> None:
    await storage.upsert_recurring(old := schedule())
    job = replace(Job("work"), state=JobState.SCHEDULED, run_ts=at(5).timestamp())

    await storage.backend.swap_recurring(old, after(old, 60), [job])

    assert await storage.get(job.id) == job
    assert (await storage.sweep(now=at(5))).promoted == 1


@pytest.mark.parametrize("when_full", ["reject", "block", "drop_oldest"])
async def test_the_jobs_come_in_full_queue_or_not(storage: Storage, when_full: str) -> None:
    await storage.configure_queue("default", max_waiting=1, when_full=when_full)
    jobs = await put(storage)
    await storage.upsert_recurring(old := schedule())

    assert await storage.backend.swap_recurring(old, after(old, 60), [job := Job("work")]) is True

    assert await claim_ids(storage) == ids([*jobs, job])


async def test_where_not_all_jobs_fit_nothing_is_done(connect: Connect) -> None:
    async with await connect(max_jobs=2) as storage:
        [there] = await put(storage)
        await storage.upsert_recurring(old := schedule())
        jobs = [Job("work", unique_key="key"), Job("work")]

        with pytest.raises(CapacityExceeded) as refusal:
            await storage.backend.swap_recurring(old, after(old, 60), jobs)

        assert (refusal.value.max_jobs, refusal.value.stored, refusal.value.offered) == (2, 1, 2)
        assert await storage.list_recurring() == [old]
        assert await due(storage) == [old.id]
        assert await storage.list() == [there]
        assert await storage.get_unique("key") is None
        assert await storage.backend.swap_recurring(old, after(old, 60), jobs[:1]) is True


async def test_a_stale_swap_into_a_full_storage_is_answered_not_refused(connect: Connect) -> None:
    async with await connect(max_jobs=1) as storage:
        await put(storage)
        await storage.upsert_recurring(old := schedule())

        assert await storage.backend.swap_recurring(schedule(next_at=9), after(old, 60), [Job("work")]) is False
