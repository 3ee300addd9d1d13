"""The load generator sends what it should, when it should, and says when it could not."""

import asyncio

import pytest

from qml_nb import InvalidValue, JobState, MemoryStorage
from qml_nb.load import LoadGenerator, Mix


@pytest.fixture
async def storage():
    async with MemoryStorage() as storage:
        yield storage


async def until(happens, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not happens():
            await asyncio.sleep(0.005)


async def test_the_intended_instant_is_the_instant_of_creation(storage):
    generator = LoadGenerator(storage, rate=100)
    generator._due(1_000_000.0)
    due = generator._due(1_000_000.1)
    await generator._send(due)
    jobs = await storage.list(limit=100)
    assert sorted(job.created_ts for job in jobs) == pytest.approx(due)


async def test_jobs_sent_late_are_counted_as_late(storage):
    generator = LoadGenerator(storage, rate=100)
    await generator._send([1_000_000.0] * 5)  # intended long ago
    assert (generator.sent, generator.late) == (5, 5)


async def test_run_sends_all_whose_instant_lies_within_it(storage):
    generator = LoadGenerator(storage, rate=200)
    await generator.run(0.5)
    assert generator.sent in (99, 100)
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == generator.sent


async def test_start_returns_at_once_and_stop_ends_the_thread(storage):
    generator = LoadGenerator(storage, rate=500).start()
    await until(lambda: generator.sent > 10)
    assert generator.is_running
    assert generator.stop().join(20)
    assert not generator.is_running
    sent = generator.sent
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == sent


async def test_it_starts_again_after_a_stop(storage):
    generator = LoadGenerator(storage, rate=500).start()
    await until(lambda: generator.sent > 5)
    generator.stop().join(20)
    before = generator.sent
    with generator:
        await until(lambda: generator.sent > before)


async def test_a_burst_comes_on_top_and_at_once(storage):
    with LoadGenerator(storage, rate=0) as generator:
        generator.burst(2_500)
        await until(lambda: generator.sent == 2_500)
    assert len({job.created_ts for job in await storage.list(limit=3_000)}) == 1


async def test_a_full_storage_refuses_and_the_load_goes_on():
    async with MemoryStorage(max_jobs=10) as storage:
        generator = LoadGenerator(storage, rate=0)
        generator.burst(25)
        await generator.run(0.01)
        assert (generator.sent, generator.refused) == (0, 25)
        await generator._send([1_000_000.0] * 4)
        assert generator.sent == 4


async def test_an_error_that_ends_the_load_is_kept(storage, caplog):
    generator = LoadGenerator(storage, rate=1_000)
    await storage.close()
    generator.start().join(20)
    assert "closed" in str(generator.error)
    assert not generator.is_running
    assert "ended by an error" in caplog.text


async def test_mix_and_queue_may_change_while_it_runs(storage):
    with LoadGenerator(storage, rate=500, queue="bulk") as generator:
        await until(lambda: generator.sent > 5)
        generator.mix = Mix(noop=0, sleep=1)
        generator.arrivals = "poisson"
        before = generator.sent
        await until(lambda: generator.sent > before + 50)
    methods = {job.method for job in await storage.list(limit=10_000, queue="bulk")}
    assert methods == {"noop", "sleep"}


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf"), "fast", True, None])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InvalidValue, match="rate"):
        LoadGenerator(MemoryStorage(), rate=rate)


@pytest.mark.parametrize("jobs", [0, -5, 1.5, "many"])
def test_a_burst_of_nothing_is_refused(jobs):
    with pytest.raises(InvalidValue, match="jobs"):
        LoadGenerator(MemoryStorage()).burst(jobs)


def test_its_repr_tells_what_it_does():
    assert repr(LoadGenerator(MemoryStorage(), 50)) == "LoadGenerator(50 jobs/s, constant, queue='default', stopped)"
