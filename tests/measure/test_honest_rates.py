"""Rates and latencies are those of the last moments, whatever happened before the monitor looked, or while it slept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from math import isnan, nan

import pytest

from qml_nb import BackgroundJobServer, Job, MemoryStorage, WorkerPool
from qml_nb.load import LoadGenerator, synthetic_tasks
from qml_nb.measure import Histogram, Monitor, Sample
from qml_nb.server.telemetry import PHASES, Snapshot

LONG = 20.0


async def until(happens: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG):
        while not happens():
            await asyncio.sleep(0.005)


async def sampled(monitor: Monitor, many: int) -> None:
    await until(lambda: len(monitor.samples) >= many)


@pytest.fixture
async def storage() -> AsyncIterator[MemoryStorage]:
    async with MemoryStorage() as storage:
        yield storage


@pytest.fixture
async def server(storage) -> AsyncIterator[BackgroundJobServer]:
    async with BackgroundJobServer(storage, synthetic_tasks(), worker_count=20) as server:
        yield server


@pytest.fixture
def monitor(storage, server):
    """A monitor of the server, not started."""
    monitor = Monitor(storage).watch(server)
    yield monitor
    monitor.stop()


def highest(monitor: Monitor, name: str) -> float:
    return max(getattr(sample, name) for sample in monitor.samples)


async def test_the_rates_of_a_steady_load_are_those_of_the_load(storage, server, monitor) -> None:
    with LoadGenerator(storage, rate=400), monitor:
        await until(lambda: len(monitor.samples) >= 20)
    steady = list(monitor.samples)[10:]
    assert sum(sample.rate_in for sample in steady) / len(steady) == pytest.approx(400, rel=0.4)
    assert sum(sample.rate_done for sample in steady) / len(steady) == pytest.approx(400, rel=0.4)
    assert {sample.rate_failed for sample in steady} == {0}
    assert {sample.slots for sample in steady} == {20}


async def test_all_that_was_done_is_in_the_rates_once(storage, server, monitor) -> None:
    done: list[tuple[int, int]] = []
    monitor.listeners.append(lambda _: done.append((monitor._done, monitor._failed)))
    with monitor:
        await until(lambda: done)
        await storage.enqueue_many([Job("noop", [], {"fail": number % 10 == 0}) for number in range(1_000)])
        await until(lambda: done[-1] == (900, 100))
        await until(lambda: monitor.samples[-1].rate_done == 0)
    assert done[-1] == (900, 100)


async def test_what_a_server_did_before_it_was_watched_is_no_rate(storage, server) -> None:
    await storage.enqueue_many([Job("noop", [], {"fail": number % 2 == 0}) for number in range(5_000)])
    await server.drained(timeout=LONG)
    await until(lambda: server.meter.succeeded + server.meter.failed == 5_000)
    heard: list[Snapshot] = []
    server.listeners.append(heard.append)
    await until(lambda: len(heard) >= 2)
    with Monitor(storage).watch(server) as monitor:
        await until(lambda: len(monitor.samples) >= 5 and monitor.samples[-1].slots)
        assert highest(monitor, "rate_done") == highest(monitor, "rate_failed") == highest(monitor, "rate_in") == 0


async def test_what_happened_while_the_monitor_slept_is_no_rate_and_no_latency(storage, server, monitor) -> None:
    with monitor:
        await until(lambda: monitor.samples and monitor.samples[-1].slots)
    await until(lambda: not monitor.is_running)
    await storage.enqueue_many([Job("noop") for _ in range(3_000)])
    await server.drained(timeout=LONG)
    heard: list[Snapshot] = []
    server.listeners.append(heard.append)
    await until(lambda: len(heard) >= 2)
    monitor.samples.clear()
    with monitor:
        await until(lambda: len(monitor.samples) >= 5)
    assert highest(monitor, "rate_done") == highest(monitor, "rate_in") == 0
    assert all(isnan(value) for sample in monitor.samples for value in sample.latency["total"])


async def test_snapshots_do_not_pile_up_while_nobody_samples(storage, server, monitor) -> None:
    heard: list[Snapshot] = []
    server.listeners.append(heard.append)
    await until(lambda: len(heard) >= 4)
    assert not monitor._inbox


async def test_servers_that_have_stopped_have_no_slots_and_are_forgotten(storage) -> None:
    pool = WorkerPool(storage, synthetic_tasks(), worker_count=3, servers=2)
    with Monitor(storage).watch(pool) as monitor:
        for _ in range(2):
            pool.start()
            await until(lambda: monitor.samples and monitor.samples[-1].slots == 6)
            pool.stop()
            await until(lambda: monitor.samples[-1].slots == 0)
        assert not monitor.servers
        assert await asyncio.to_thread(pool.join, LONG)


async def test_a_monitor_starts_again_and_once_only(storage) -> None:
    monitor = Monitor(storage)
    for _ in range(3):
        assert monitor.start() is monitor
        assert monitor.start().is_running
        many = len(monitor.samples)
        await sampled(monitor, many + 1)
        assert not monitor.stop().is_running
    assert repr(monitor) == f"Monitor(stopped, {len(monitor.samples)} samples)"


async def test_samples_come_about_ten_times_a_second_with_a_server_and_without(storage, server) -> None:
    for monitor in (Monitor(storage), Monitor(storage).watch(server)):
        with monitor:
            await sampled(monitor, 8)
        span = monitor.samples[7].ts - monitor.samples[0].ts
        assert 0.6 < span < 7


async def test_a_listener_that_raises_stops_no_sampling(storage, caplog) -> None:
    monitor = Monitor(storage)
    monitor.listeners.append(lambda _: 1 / 0)
    with monitor:
        await until(lambda: len(monitor.samples) >= 3)
    assert "ZeroDivisionError" in caplog.text


async def test_latencies_are_those_that_callers_felt(storage, server, monitor) -> None:
    with monitor:
        await until(lambda: monitor.samples)
        await storage.enqueue_many([Job("sleep", [0.1]) for _ in range(20)])
        await until(lambda: not isnan(monitor.samples[-1].latency["run"][0]))
    seen = monitor.samples[-1].latency
    assert all(0.099 <= value < 5 for value in (*seen["run"], *seen["total"]))
    assert all(total >= run for run, total in zip(seen["run"], seen["total"], strict=True))


def test_a_frame_without_samples_is_empty_and_latencies_without_jobs_are_not_numbers() -> None:
    monitor = Monitor(MemoryStorage())
    assert monitor.to_frame().empty
    nothing = dict.fromkeys(PHASES, (nan, nan, nan))
    monitor.samples.append(Sample(1.5, 1.0, 2.0, 3.0, 4, 5, 6, {"enqueued": 4}, nothing))
    frame = monitor.to_frame()
    assert list(frame.columns) == [
        *("ts", "rate_in", "rate_done", "rate_failed", "depth", "busy", "slots", "count_enqueued"),
        *(f"{phase}_p{percent}_s" for phase in PHASES for percent in (50, 95, 99)),
    ]
    assert frame["total_p99_s"].isna().all()
    assert frame["ts"][0].timestamp() == 1.5


async def test_many_servers_are_one_picture(storage) -> None:
    with (
        WorkerPool(storage, synthetic_tasks(), worker_count=5, servers=4) as pool,
        Monitor(storage).watch(pool) as monitor,
    ):
        await until(lambda: monitor.samples and monitor.samples[-1].slots == 20)
        await storage.enqueue_many([Job("sleep", [0.3]) for _ in range(40)])
        await until(lambda: highest(monitor, "busy") == 20)
        await storage.drained(timeout=LONG)
        await until(lambda: monitor._done == 40)
        whole = Histogram()
        for phases in monitor._phases:
            whole = whole + phases["run"]
    assert whole.count <= 40
