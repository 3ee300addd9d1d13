"""Recurring schedules: each instant gives one job, whatever the number of servers, and missed ones as the policy says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from msgspec.structs import replace

from qml_nb import BackgroundJobServer, CapacityExceeded, InvalidValue, Job, JobState, Recurring, RetryPolicy, Storage
from qml_nb.errors import InvalidJob, StorageError
from qml_nb.server.recurring import MOST, fire_due, owed
from tests.clock import NOW, at
from tests.server.waiting import until

FIVE_MINUTES = "*/5 * * * *"
EVERY_SECOND = "* * * * * *"
PAST = NOW.timestamp() - 3_600


async def fire(storage: Storage, seconds: float = 0) -> int:
    """Do what servers do, at so many seconds after `NOW`."""
    return await fire_due(storage.backend, at(seconds).timestamp())


async def instants(storage: Storage) -> list[float]:
    """For when the jobs were meant, in seconds from `NOW`, in the order of their creation."""
    jobs = reversed(await storage.list(limit=5_000))
    return [job.created_ts - NOW.timestamp() for job in jobs]


async def stored(storage: Storage, schedule_id: str = "report") -> Recurring:
    [schedule] = [each for each in await storage.list_recurring() if each.id == schedule_id]
    return schedule


async def owing(storage: Storage, misfire: str, cron: str = FIVE_MINUTES, since: float = 3_600) -> Recurring:
    """A schedule that nobody has fired for so many seconds before `NOW`."""
    schedule = Recurring("report", cron, "report", misfire=misfire, next_ts=NOW.timestamp() - since)
    await storage.upsert_recurring(schedule)
    return schedule


# -- each instant, one job


async def test_a_due_schedule_gives_a_job_like_its_template(storage) -> None:
    template = Job(
        *("report", [2**53 + 1, []], {"deep": {}}),
        queue="reports",
        priority=-3,
        max_retries=4,
        timeout=2.5,
        metadata={"team": "a"},
        job_type="kind",
        retry=RetryPolicy.fixed(3),
    )
    schedule = await storage.schedule_recurring("report", FIVE_MINUTES, template, timezone="Asia/Kathmandu", now=NOW)
    assert schedule == await stored(storage)
    assert schedule.next_ts == at(300).timestamp()

    assert await fire(storage, 299) == 0
    assert await fire(storage, 301) == 1

    [job] = await storage.list()
    for field in (
        "method",
        "args_json",
        "kwargs_json",
        "queue",
        "priority",
        "max_retries",
        "timeout",
        "job_type",
        "retry",
    ):
        assert getattr(job, field) == getattr(template, field)
    assert job.metadata == {"team": "a", "schedule": "report", "scheduled_for": "2030-01-01T00:05:00+00:00"}
    assert job.created_at == at(300)
    assert job.id != template.id
    assert job.state is JobState.ENQUEUED
    after = await stored(storage)
    assert (after.last_ts, after.next_ts) == (at(300).timestamp(), at(600).timestamp())


async def test_it_is_not_fired_twice_for_an_instant(storage, another) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    others = [await another() for _ in range(4)]

    fired = await asyncio.gather(*(fire(each, 300) for each in others for _ in range(5)))

    assert sum(fired) == 1
    assert await instants(storage) == [300]


async def test_who_comes_with_what_it_was_before_has_written_nothing(storage) -> None:
    """As if a server had died, or slept, between its look and its write, and another one had fired meanwhile."""
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    [seen] = (await storage.backend.due_recurring(10, now=at(300).timestamp()))[1]
    await fire(storage, 300)

    late = Job("report")
    assert await storage.backend.swap_recurring(seen, replace(seen, next_ts=1.0), [late]) is False

    assert await storage.get(late.id) is None
    assert (await stored(storage)).next_ts == at(600).timestamp()


async def test_three_servers_fire_every_second_once(storage, another, registry) -> None:
    ran: list[None] = []
    registry.register("note", lambda: ran.append(None))
    async with AsyncExitStack() as servers:
        for _ in range(3):
            server = BackgroundJobServer(await another(), registry, worker_count=2, scheduler_poll_interval=0.02)
            await servers.enter_async_context(server)

        schedule = await storage.schedule_recurring("report", EVERY_SECOND, Job("note"))
        await until(lambda: len(ran) >= 4)
        await storage.remove_recurring("report")
        await storage.drained(timeout=20)

    jobs = await storage.list(limit=100)
    meant = sorted(job.created_ts for job in jobs)
    assert meant[0] == schedule.next_ts
    assert {later - earlier for earlier, later in pairwise(meant)} == {1.0}
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert len(ran) == len(jobs)


async def test_many_schedules_are_fired_by_the_first_that_looks(storage) -> None:
    for number in range(250):
        await storage.schedule_recurring(f"s{number}", FIVE_MINUTES, Job("report", [number]), now=NOW)
    assert [await fire(storage, 300) for _ in range(4)] == [100, 100, 50, 0]


# -- late and missed


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [("skip", []), ("once", [-300.0]), ("all", [-3600.0 + 300 * number for number in range(12)])],
)
async def test_what_was_missed_is_made_up_for_as_the_policy_says(storage, misfire, expected) -> None:
    await owing(storage, misfire)

    assert await fire(storage, -15) == len(expected)

    assert await instants(storage) == expected
    after = await stored(storage)
    assert after.next_ts == at(0).timestamp()
    assert after.last_ts == (at(expected[-1]).timestamp() if expected else None)


@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
async def test_what_is_less_than_ten_seconds_late_is_not_missed(storage, misfire) -> None:
    await owing(storage, misfire, EVERY_SECOND, since=9)

    assert await fire(storage, 0.5) == 10

    assert await instants(storage) == [float(second) for second in range(-9, 1)]


@pytest.mark.parametrize(("misfire", "missed"), [("skip", []), ("once", [-10.0])])
async def test_after_what_was_missed_the_late_ones_come_each(storage, misfire, missed) -> None:
    await owing(storage, misfire, EVERY_SECOND, since=10_000_000)

    await fire(storage, 0)

    assert await instants(storage) == missed + [float(second) for second in range(-9, 1)]


async def test_all_that_was_missed_comes_in_parts(storage) -> None:
    await owing(storage, "all", EVERY_SECOND, since=2 * MOST + 99)

    assert [await fire(storage) for _ in range(4)] == [MOST, MOST, 100, 0]

    assert await instants(storage) == [float(second) for second in range(-2 * MOST - 99, 1)]


def test_years_of_every_second_are_caught_up_with_without_counting_them() -> None:
    schedule = Recurring("report", EVERY_SECOND, "report", next_ts=0.0)
    assert owed(schedule, 2e9) == ([*map(float, range(1_999_999_990, 2_000_000_001))], 2e9 + 1)


async def test_one_that_is_never_due_again_fires_the_last_time_and_stays(storage) -> None:
    last = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    await storage.upsert_recurring(Recurring("report", "59 23 31 12 *", "report", next_ts=last.timestamp()))
    assert await fire_due(storage.backend, last.timestamp()) == 1
    after = await stored(storage)
    assert (after.next_ts, after.enabled) == (None, True)


# -- what its jobs meet


async def test_while_a_job_holds_the_key_of_the_schedule_no_other_comes(storage) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report", unique_key="one at a time"), now=NOW)
    await fire(storage, 300)
    await fire(storage, 600)
    assert await instants(storage) == [300]
    assert (await stored(storage)).next_ts == at(900).timestamp()

    claimed = await storage.fetch_and_lock_job("worker")
    await storage.complete(claimed)
    await fire(storage, 900)
    assert await instants(storage) == [300, 900]


async def test_a_full_storage_leaves_it_due_and_others_are_fired(connect) -> None:
    async with await connect(max_jobs=3) as storage:
        await owing(storage, "all")
        await storage.schedule_recurring("other", FIVE_MINUTES, Job("other"), now=at(-300))
        before = await stored(storage)

        with pytest.raises(CapacityExceeded):
            await fire(storage)

        assert [job.method for job in await storage.list()] == ["other"]
        assert await stored(storage) == before


# -- schedules that can't be fired


BAD = {
    "cron": "whenever",
    "timezone": "../../etc/passwd",
    "misfire": "later",
    "method": "",
    "queue": "a\0b",
    "args_json": b"{",
    "kwargs_json": b"[]",
    "metadata_json": b"7",
    "priority": 2**40,
    "timeout": -1.0,
    "next_ts": -1e300,
}


@pytest.fixture
async def bad(storage, request) -> Recurring:
    """A schedule that another version, or anybody else, has written into the storage."""
    values = {"cron": FIVE_MINUTES, "method": "report", "next_ts": PAST} | {request.param: BAD[request.param]}
    schedule = Recurring("bad", **values)
    await storage.backend.put_recurring(schedule)
    return schedule


@pytest.mark.parametrize("bad", BAD, indirect=True)
async def test_one_that_can_not_be_fired_is_disabled_and_told_once(storage, bad, caplog) -> None:
    await storage.schedule_recurring("good", FIVE_MINUTES, Job("report"), now=NOW)

    fired = [await fire(storage, 300) for _ in range(5)]

    assert sum(fired) == 1
    assert [job.metadata["schedule"] for job in await storage.list()] == ["good"]
    assert await stored(storage, "bad") == replace(bad, enabled=False, next_ts=None)
    assert caplog.text.count("can't be fired, and was disabled") == 1
    if bad.next_ts == PAST:
        with pytest.raises(InvalidValue):
            await storage.resume_recurring("bad")


async def test_one_that_was_disabled_runs_again_once_it_is_registered_anew(storage) -> None:
    await storage.backend.put_recurring(Recurring("report", "whenever", "report", next_ts=PAST))
    await fire(storage)
    schedule = await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    assert (schedule.enabled, schedule.next_ts) == (True, at(300).timestamp())


@pytest.mark.parametrize("field", BAD)
async def test_what_can_not_be_fired_is_not_taken(storage, field) -> None:
    schedule = Recurring("bad", **{"cron": FIVE_MINUTES, "method": "report"} | {field: BAD[field]})
    with pytest.raises(InvalidValue, match=field.removesuffix("_json")):
        await storage.upsert_recurring(schedule)
    assert await storage.list_recurring() == []


async def test_only_a_new_job_is_a_template(storage) -> None:
    await storage.enqueue(Job("report"))
    claimed = await storage.fetch_and_lock_job("worker")
    for template in (claimed, "report"):
        with pytest.raises((InvalidJob, ValueError)):
            await storage.schedule_recurring("report", FIVE_MINUTES, template)


# -- pausing, and registering again


async def test_a_paused_one_is_not_fired_and_resumes_from_now(storage) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)

    assert await storage.pause_recurring("report") is True
    assert await storage.pause_recurring("report") is False
    assert await fire(storage, 300) == 0

    assert await storage.resume_recurring("report", now=at(650)) is True
    assert await storage.resume_recurring("report") is False
    assert (await stored(storage)).next_ts == at(900).timestamp()
    assert await fire(storage, 899) == 0
    assert await fire(storage, 900) == 1


async def test_one_that_is_not_there_can_not_be_paused(storage) -> None:
    assert await storage.pause_recurring("report") is False
    assert await storage.resume_recurring("report") is False


async def test_registering_again_keeps_its_place(storage) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    await fire(storage, 300)
    before = await stored(storage)

    again = await storage.schedule_recurring("report", FIVE_MINUTES, Job("report", [2]), misfire="all", now=at(10_000))

    assert again == replace(before, args_json=b"[2]", misfire="all") == await stored(storage)


@pytest.mark.parametrize("change", [{"cron": "*/10 * * * *"}, {"timezone": "Asia/Kathmandu"}])
async def test_another_expression_or_zone_is_another_place(storage, change) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    await fire(storage, 300)

    values = {"id": "report", "cron": FIVE_MINUTES, "job": Job("report")} | change
    again = await storage.schedule_recurring(**values, now=at(10_001))

    assert again.next_ts == at(10_200).timestamp()
    assert again.last_ts == at(300).timestamp()


@pytest.mark.parametrize("cron", [FIVE_MINUTES, "@hourly"])
async def test_registering_again_does_not_resume_what_somebody_paused(storage, cron) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    await storage.pause_recurring("report")
    assert (await storage.schedule_recurring("report", cron, Job("report"))).enabled is False


async def test_registering_while_servers_fire_loses_neither(storage, another) -> None:
    await storage.schedule_recurring("report", EVERY_SECOND, Job("report"), now=NOW)
    other = await another()

    async def register() -> None:
        for number in range(20):
            await other.schedule_recurring("report", EVERY_SECOND, Job("report", [number]), now=NOW)

    async def fire_on() -> None:
        for second in range(1, 21):
            while (await stored(storage)).next_ts <= at(second).timestamp():
                await fire(storage, second)

    await asyncio.gather(register(), fire_on())
    assert await instants(storage) == [float(second) for second in range(1, 21)]
    assert (await stored(storage)).args_json == b"[19]"


async def test_the_zone_s_clock_says_when(storage) -> None:
    spring = datetime(2030, 3, 30, 12, tzinfo=UTC)
    await storage.schedule_recurring("report", "30 2 * * *", Job("report"), timezone="Europe/Berlin", now=spring)
    for hours in range(49):
        await fire_due(storage.backend, (spring + timedelta(hours=hours)).timestamp())
    assert [job.created_at.isoformat() for job in reversed(await storage.list())] == [
        *("2030-03-31T01:00:00+00:00", "2030-04-01T00:30:00+00:00")
    ]


async def test_a_schedule_that_others_change_all_the_time_is_given_up(storage, monkeypatch) -> None:
    await storage.schedule_recurring("report", FIVE_MINUTES, Job("report"), now=NOW)
    look = storage.backend.list_recurring

    async def look_and_meddle() -> list[Recurring]:
        seen = await look()
        await storage.backend.put_recurring(replace(seen[0], last_ts=(seen[0].last_ts or 0) + 1))
        return seen

    monkeypatch.setattr(storage.backend, "list_recurring", look_and_meddle)
    with pytest.raises(StorageError, match="'report' is changed by others"):
        await storage.pause_recurring("report")
