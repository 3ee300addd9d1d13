"""The monitor on a real server: counts are the server's, an outage is told and ends, the storage may change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from qml_nb import Job, MemoryStorage, RedisStorage, WorkerPool, open_storage
from qml_nb.load import LoadGenerator, synthetic_tasks
from qml_nb.measure import Monitor

LONG = 20.0


@pytest.fixture
async def storage(server) -> AsyncIterator[RedisStorage]:
    async with await open_storage(server.url) as storage:
        yield storage


async def until(happens, seconds: float = LONG) -> None:
    async with asyncio.timeout(seconds):
        while not happens():
            await asyncio.sleep(0.005)


async def test_counts_and_rates_are_right_under_load(storage) -> None:
    with (
        WorkerPool(storage, synthetic_tasks(), worker_count=8) as pool,
        Monitor(storage).watch(pool) as monitor,
        LoadGenerator(storage, rate=1_000) as load,
    ):
        await until(lambda: len(monitor.samples) >= 30)
        steady = list(monitor.samples)[10:]
        load.stop()
        await storage.drained(timeout=LONG)
        await until(lambda: monitor.samples[-1].counts["succeeded"] == load.sent)
        await until(lambda: monitor._done == load.sent)
    for name in ("rate_in", "rate_done"):
        assert sum(getattr(sample, name) for sample in steady) / len(steady) == pytest.approx(1_000, rel=0.2)
    assert monitor.samples[-1].counts == {str(state): many for state, many in (await storage.get_job_counts()).items()}


async def test_jobs_that_others_store_on_the_server_are_counted_too(storage, server) -> None:
    with Monitor(storage) as monitor:
        async with await open_storage(server.url) as other:
            await other.enqueue_many([Job("noop") for _ in range(7)])
        await until(lambda: monitor.samples and monitor.samples[-1].depth == 7)


@pytest.mark.parametrize(("harm", "cure"), [("kill", "restart"), ("freeze", "thaw")])
async def test_a_server_that_is_away_is_told_within_seconds_and_again_when_it_is_back(
    storage, server, harm, cure
) -> None:
    told: list[str] = []
    monitor = Monitor(storage)
    monitor.on_error.append(lambda: told.append(str(monitor.error or "")))
    with monitor:
        await until(lambda: monitor.samples)
        assert monitor.error is None
        getattr(server, harm)()
        await until(lambda: monitor.error, 4.0)
        samples = len(monitor.samples)
        getattr(server, cure)()
        await until(lambda: monitor.error is None)
        await until(lambda: len(monitor.samples) > samples)
    assert told[0]
    assert told[-1] == ""


async def test_the_storage_may_change_and_rates_do_not_reach_over_the_change(storage) -> None:
    await storage.enqueue_many([Job("noop") for _ in range(3)])
    memory = MemoryStorage()
    await memory.enqueue_many([Job("noop") for _ in range(50_000)])
    with Monitor(memory) as monitor:
        await until(lambda: monitor.samples and monitor.samples[-1].depth == 50_000)
        monitor.storage = storage
        await until(lambda: monitor.samples[-1].depth == 3)
        await until(lambda: len(monitor.samples) >= 15)
    assert {sample.rate_in for sample in monitor.samples} == {0}


async def test_a_steady_load_stays_steady_in_the_picture_when_the_storage_changes(storage) -> None:
    with Monitor(MemoryStorage()) as monitor, LoadGenerator(monitor.storage, rate=500) as load:
        await until(lambda: len(monitor.samples) >= 10)
        load.storage = monitor.storage = storage
        await until(lambda: len(monitor.samples) >= 25)
    rates = [sample.rate_in for sample in list(monitor.samples)[8:]]
    assert min(rates) > 250
    assert max(rates) < 900


async def test_a_pool_that_is_no_longer_watched_has_no_slots_in_the_picture(storage) -> None:
    with WorkerPool(storage, synthetic_tasks(), worker_count=3) as pool, Monitor(storage).watch(pool) as monitor:
        await until(lambda: monitor.samples and monitor.samples[-1].slots == 3)
        monitor.unwatch(pool)
        await until(lambda: monitor.samples[-1].slots == 0)
        assert not pool.listeners
        monitor.watch(pool)
        await until(lambda: monitor.samples[-1].slots == 3)
