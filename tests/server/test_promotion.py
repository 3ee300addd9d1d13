"""Due jobs come in soon: as late as the interval of the sweeps, and not held up by anything else that a server does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from statistics import median
from time import monotonic

import pytest

from qml_nb import Job
from qml_nb.server import server as server_module
from qml_nb.states import JobState
from tests.server.faults import Faulty
from tests.server.waiting import until


async def schedule(storage, many: int, *, over: float = 0.0) -> None:
    """Let so many jobs be due, from now on over so many seconds."""
    now = datetime.now(UTC)
    for number in range(many):
        await storage.schedule(Job("note"), at=now + timedelta(seconds=over * number / many))


async def lags(storage, serve, interval: float) -> list[float]:
    """Seconds by which jobs started after they were due, by the storage's clock."""
    server = await serve(worker_count=50, scheduler_poll_interval=interval)
    await schedule(storage, 200, over=1.5)
    await storage.drained(timeout=20)
    await server.stop()
    jobs = await storage.list(limit=200)
    for job in jobs:
        await storage.delete(job.id)
    return [job.started_ts - job.run_ts for job in jobs]


async def test_the_lag_of_promotion_is_that_of_the_interval(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    seldom, often = [await lags(storage, serve, interval) for interval in (0.5, 0.02)]
    assert min(seldom + often) >= 0
    assert median(often) < median(seldom) / 2


async def test_what_is_due_beyond_the_limit_of_a_sweep_does_not_wait_for_the_next(
    storage, registry, serve, monkeypatch
) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_LIMIT", 100)
    registry.register("note", lambda: None)
    faults, interval = Faulty(storage), 0.5
    await schedule(storage, 1_000)
    await serve(scheduler_poll_interval=interval, queues=["others"])
    await until(lambda: faults.calls["sweep"])
    began = monotonic()
    async with asyncio.timeout(20):
        while (await storage.get_job_counts())[JobState.ENQUEUED] < 1_000:
            await asyncio.sleep(0.002)
    assert monotonic() - began < 5 * interval  # one sweep an interval would take ten
    assert faults.calls["sweep"] >= 11


async def test_sweeps_that_find_little_come_once_an_interval(storage, registry, serve) -> None:
    faults = Faulty(storage)
    await schedule(storage, 50)
    began = monotonic()
    await serve(scheduler_poll_interval=0.05, queues=["others"])
    await until(lambda: faults.calls["sweep"] >= 10)
    assert faults.calls["sweep"] <= (monotonic() - began) / 0.05 + 1


@pytest.mark.parametrize("verb", ["due_recurring", "publish", "beat_server", "renew", "settle", "claim"])
async def test_a_verb_that_hangs_does_not_hold_up_promotion(storage, registry, serve, verb) -> None:
    registry.register("note", lambda: None)
    faults = Faulty(storage)
    faults.hold(verb)
    server = await serve(scheduler_poll_interval=0.02, telemetry_interval=0.02, lease=0.1)
    await storage.enqueue(Job("note"))
    await until(lambda: faults.calls[verb] or verb == "beat_server")
    for _ in range(3):
        await schedule(storage, 5)
        async with asyncio.timeout(20):
            while (await storage.get_job_counts())[JobState.SCHEDULED]:
                await asyncio.sleep(0.002)
    faults.release(verb)
    await server.stop()


async def test_without_a_due_schedule_a_poll_is_one_cheap_call(storage, registry, serve) -> None:
    faults = Faulty(storage)
    await storage.schedule_recurring("later", "0 0 1 1 *", Job("note"))
    calls = faults.calls.copy()
    began = monotonic()
    await serve(scheduler_poll_interval=0.05)
    await until(lambda: faults.calls["due_recurring"] - calls["due_recurring"] >= 10)
    asked = faults.calls - calls
    assert asked["due_recurring"] <= (monotonic() - began) / 0.05 + 1
    assert not asked.keys() & {"swap_recurring", "list_recurring", "put_recurring"}
