"""What a storage says of itself, and whether it is well, on every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qml_nb import Job, QueueConfig, Recurring, ServerInfo, Storage
from qml_nb.ids import first_id_at
from qml_nb.measure.health import complaint
from qml_nb.measure.storage_reading import StorageReading, clock, read_storage
from tests.contract.conftest import BACKENDS


@pytest.fixture(params=BACKENDS)
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """An empty storage of the test's own."""
    async with await BACKENDS[request.param]()() as storage:
        yield storage


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def old(seconds: float, method: str = "send", **fields: Any) -> Job:
    """A job that was made so long ago."""
    made = ago(seconds)
    return Job(method, id=first_id_at(made.timestamp()), created_at=made, **fields)


def server(name: str = "mailer", host: str = "pod-1", queues: tuple[str, ...] = ()) -> ServerInfo:
    return ServerInfo(f"{name}#1", name, 10, queues, host, 42)


# -- what is read


async def test_an_empty_storage_has_nothing_but_a_time(storage) -> None:
    before = await clock(storage)
    reading = await read_storage(storage)
    assert reading == StorageReading(reading.ts, [], [], [])
    assert before <= reading.ts <= await clock(storage)


async def test_queues_have_counts_bounds_and_pauses(storage) -> None:
    await storage.enqueue_many([old(100, queue="mail"), Job("send", queue="mail"), Job("send", queue="slow")])
    await storage.fetch_and_lock_job("worker", ["slow"])
    await storage.pause_queue("off")
    await storage.configure_queue("narrow", concurrency=2)
    mail, narrow, off, slow = (await read_storage(storage)).queues
    assert [each.queue for each in (mail, narrow, off, slow)] == ["mail", "narrow", "off", "slow"]
    assert (mail.jobs["enqueued"], slow.jobs["enqueued"], slow.jobs["processing"]) == (2, 0, 1)
    assert (mail.paused, off.paused) == (False, True)
    assert (mail.config, narrow.config) == (QueueConfig(), QueueConfig(concurrency=2))
    assert 100 <= mail.next_age_seconds < 160
    assert (narrow.next_age_seconds, off.next_age_seconds, slow.next_age_seconds) == (None, None, None)


async def test_a_job_that_was_scheduled_waits_since_it_was_due(storage) -> None:
    await storage.schedule(old(1_000), at=ago(10))
    await storage.sweep()
    [queue] = (await read_storage(storage)).queues
    assert 10 <= queue.next_age_seconds < 70


async def test_servers_have_the_age_of_their_heartbeat(storage) -> None:
    await storage.register_server(server(queues=("mail",)), now=ago(200))
    await storage.heartbeat("mailer#1", now=ago(20))
    [each] = (await read_storage(storage)).servers
    assert (each.server_name, each.host, each.pid, each.worker_count, each.queues) == (
        "mailer",
        "pod-1",
        42,
        10,
        ("mail",),
    )
    assert 20 <= each.heartbeat_age_seconds < 80
    assert 200 <= each.uptime_seconds < 260


async def test_schedules_have_their_next_firing(storage) -> None:
    await storage.upsert_recurring(Recurring("nightly", "0 3 * * *", "report", queue="slow", next_ts=4e9, last_ts=1e9))
    [each] = (await read_storage(storage)).schedules
    assert (each.schedule_id, each.cron, each.timezone) == ("nightly", "0 3 * * *", "UTC")
    assert (each.method, each.queue, each.enabled, each.next_ts, each.last_ts) == ("report", "slow", True, 4e9, 1e9)


async def test_one_queue_is_read_alone(storage) -> None:
    await storage.enqueue_many([Job("send", queue=queue) for queue in ("mail", "slow")])
    for each in (server("a", queues=("mail",)), server("b", queues=("slow",)), server("c")):
        await storage.register_server(each)
    await storage.upsert_recurring(Recurring("nightly", "0 3 * * *", "report", queue="slow", next_ts=4e9))
    reading = await read_storage(storage, "mail")
    assert [each.queue for each in reading.queues] == ["mail"]
    assert [each.server_name for each in reading.servers] == ["a", "c"]
    assert reading.schedules == []
    assert [each.queue for each in (await read_storage(storage, "new")).queues] == ["new"]


# -- whether it is well


async def test_it_is_well_with_a_live_server_within_its_bounds(storage) -> None:
    await storage.register_server(server(), now=ago(20))
    await storage.enqueue_many([Job("send"), old(50, queue="mail")])
    assert await complaint(storage) is None
    assert await complaint(storage, server="mailer", max_waiting=2, max_age=3600) is None
    assert await complaint(storage, server="pod-1", queue="mail", max_waiting=1) is None


async def test_it_is_not_well_without_a_server(storage) -> None:
    assert await complaint(storage) == "no server is registered"
    await storage.register_server(server(queues=("mail",)))
    assert await complaint(storage, server="other") == "no server 'other' is registered, only 'mailer' on 'pod-1'"
    assert await complaint(storage, queue="slow") == "no server is registered"
    assert await complaint(storage, queue="mail") is None


async def test_it_is_not_well_without_a_heartbeat(storage) -> None:
    await storage.register_server(server(), now=ago(100))
    said = await complaint(storage, server="mailer")
    assert said is not None
    assert said.startswith("no server 'mailer' is live: the last heartbeat was 1")
    await storage.register_server(server("other"))
    assert await complaint(storage) is None


async def test_it_is_not_well_when_too_many_wait(storage) -> None:
    await storage.register_server(server())
    await storage.enqueue_many([Job("send", queue=queue) for queue in ("mail", "mail", "slow")])
    await storage.schedule(Job("send", queue="mail"), delay=60)
    assert await complaint(storage, max_waiting=2) == "3 jobs wait, more than 2"
    assert await complaint(storage, queue="mail", max_waiting=1) == "2 jobs wait in queue 'mail', more than 1"
    assert await complaint(storage, queue="mail", max_waiting=2) is None


async def test_it_is_not_well_when_a_job_has_waited_too_long_whatever_goes_before_it(storage) -> None:
    late = old(500, "report", queue="slow", priority=-5)
    await storage.register_server(server())
    await storage.enqueue_many([late, old(200, priority=5), *(Job("send", priority=9) for _ in range(5))])
    said = await complaint(storage, max_age=100)
    assert said is not None
    assert said.startswith(f"job {late.id} ('report' in queue 'slow') has waited 5")
    assert said.endswith(" s, more than 100")
    assert await complaint(storage, queue="default", max_age=300) is None
    assert await complaint(storage, max_age=3600) is None


async def test_what_was_not_due_or_is_paused_has_not_waited(storage) -> None:
    await storage.register_server(server())
    await storage.schedule(old(1_000), at=ago(1))
    await storage.sweep()
    await storage.enqueue(old(1_000, queue="off"))
    await storage.pause_queue("off")
    assert await complaint(storage, max_age=100) is None
