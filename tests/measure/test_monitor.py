"""The monitor's samples say what storage and servers did, go on when a storage fails, and never pile up."""

import asyncio
from math import isnan

import pytest

from qml_nb import Job, MemoryStorage, WorkerPool
from qml_nb.load import synthetic_tasks
from qml_nb.measure import Monitor
from qml_nb.server.telemetry import PHASES


async def sample(monitor, fits, seconds=20.0):
    """Wait for a sample that fits, and return it."""
    async with asyncio.timeout(seconds):
        while True:
            found = next((each for each in list(monitor.samples) if fits(each)), None)
            if found is not None:
                return found
            await asyncio.sleep(0.01)


@pytest.fixture
async def storage():
    async with MemoryStorage() as storage:
        yield storage


@pytest.fixture
def pool(storage):
    with WorkerPool(storage, synthetic_tasks(), worker_count=3) as pool:
        yield pool


async def test_a_sample_counts_what_waits_without_any_server(storage):
    await storage.enqueue_many([Job("noop") for _ in range(7)])
    with Monitor(storage) as monitor:
        seen = await sample(monitor, lambda each: each.depth == 7)
    assert (seen.busy, seen.slots, seen.counts["enqueued"]) == (0, 0, 7)


async def test_jobs_in_done_and_failed_show_as_rates(storage, pool):
    with Monitor(storage).watch(pool) as monitor:
        await sample(monitor, lambda each: each.slots == 3)
        await storage.enqueue_many([Job("noop", kwargs={"fail": number % 4 == 0}) for number in range(400)])
        await storage.drained()
        seen = await sample(monitor, lambda each: each.rate_in and each.rate_done and each.rate_failed)
        total = await sample(monitor, lambda each: each.counts["succeeded"] == 300 and each.counts["failed"] == 100)
    assert seen.rate_done > seen.rate_failed > 0
    assert total.depth == 0


async def test_rates_fall_to_zero_and_latencies_to_unknown_when_nothing_happens(storage, pool):
    with Monitor(storage).watch(pool) as monitor:
        await storage.enqueue(Job("noop"))
        worked = await sample(monitor, lambda each: each.rate_done > 0)
        idle = await sample(monitor, lambda each: each.ts > worked.ts and each.rate_done == 0 == each.rate_in)
        await sample(monitor, lambda each: each.ts > idle.ts and isnan(each.latency["total"][0]))


async def test_every_phase_has_ascending_percentiles(storage, pool):
    with Monitor(storage).watch(pool) as monitor:
        await storage.enqueue_many([Job("sleep", [0.001 * number]) for number in range(20)])
        await storage.drained()
        seen = await sample(monitor, lambda each: not isnan(each.latency["run"][2]))
    assert set(seen.latency) == set(PHASES)
    assert list(seen.latency["run"]) == sorted(seen.latency["run"])


async def test_busy_slots_show_while_jobs_run(storage, pool):
    await storage.enqueue_many([Job("sleep", [0.5]) for _ in range(2)])
    with Monitor(storage).watch(pool) as monitor:
        await sample(monitor, lambda each: (each.busy, each.slots) == (2, 3))


async def test_the_window_bounds_the_samples(storage):
    with Monitor(storage, window=0.3) as monitor:
        first = await sample(monitor, lambda each: True)
        await sample(monitor, lambda each: each.ts > first.ts + 0.5)
        assert len(monitor.samples) <= 3


async def test_listeners_get_each_sample_and_stop_ends_them(storage):
    got = []
    monitor = Monitor(storage)
    monitor.listeners.append(got.append)
    with monitor:
        await sample(monitor, lambda each: len(monitor.samples) >= 3)
    assert got[:3] == list(monitor.samples)[:3]
    assert not monitor.is_running


async def test_a_storage_that_fails_leaves_a_gap_and_no_more(storage, monkeypatch, caplog):
    answers = iter([True, False, False])
    right = storage.get_job_counts

    async def sometimes():
        if next(answers, True):
            return await right()
        raise ConnectionError("away")

    monkeypatch.setattr(storage, "get_job_counts", sometimes)
    with Monitor(storage) as monitor:
        await sample(monitor, lambda each: len(monitor.samples) >= 3)
    assert "no sample" in caplog.text


async def test_it_ends_with_its_storage(storage):
    with Monitor(storage) as monitor:
        await sample(monitor, lambda each: True)
        await storage.close()
        async with asyncio.timeout(20):
            while monitor.is_running:
                await asyncio.sleep(0.01)


async def test_the_frame_has_a_row_a_sample_and_units_in_its_names(storage):
    with Monitor(storage) as monitor:
        await sample(monitor, lambda each: len(monitor.samples) >= 2)
    frame = monitor.to_frame()
    assert len(frame) == len(monitor.samples)
    assert {"ts", "rate_in", "depth", "count_enqueued", "run_p95_s", "total_p99_s"} <= set(frame.columns)
    assert str(frame["ts"].dt.tz) == "UTC"
