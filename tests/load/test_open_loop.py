"""The load is open: whatever the sender, the storage or the user does meanwhile, each job keeps its intended instant."""

from __future__ import annotations

import asyncio
import sys
import threading
from itertools import pairwise
from math import exp, sqrt
from statistics import fmean, pvariance
from time import monotonic, sleep, time

import pytest

from qml_nb import BackgroundJobServer, InvalidValue, Job, JobState, MemoryStorage
from qml_nb.load import LoadGenerator, Mix, synthetic_tasks

BEGIN = 1_000_000.0
LONG = 20.0
EVERYTHING = Mix(noop=1, sleep=1, cpu=1, failing=0.3)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


def slow_at_first(storage, seconds: float) -> None:
    """Let the first batch take that long."""
    enqueue_many, waits = storage.enqueue_many, iter([seconds])

    async def slow(jobs: list[Job]) -> int:
        await asyncio.sleep(next(waits, 0))
        return await enqueue_many(jobs)

    storage.enqueue_many = slow


async def sent_by(freeze: float, **options) -> list[Job]:
    """The jobs of half a second of load, oldest first, from a sender that froze for a while."""
    storage = MemoryStorage()
    slow_at_first(storage, freeze)
    await LoadGenerator(storage, rate=200, mix=EVERYTHING, **options).run(0.5)
    return sorted(await storage.list(limit=1_000), key=lambda job: job.id)


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
async def test_one_seed_means_the_same_gaps_and_the_same_jobs_however_the_sender_is_held_up(arrivals) -> None:
    quick, frozen = await sent_by(0, arrivals=arrivals, seed=7), await sent_by(0.3, arrivals=arrivals, seed=7)
    many = min(len(quick), len(frozen))
    assert many > 50
    for one, other in zip(pairwise(quick[:many]), pairwise(frozen[:many]), strict=True):
        gaps = [later.created_ts - earlier.created_ts for earlier, later in (one, other)]
        assert gaps[0] == pytest.approx(gaps[1], abs=1e-5)
    whats = [[(job.method, job.args, job.kwargs) for job in jobs[:many]] for jobs in (quick, frozen)]
    assert whats[0] == whats[1]


async def test_a_frozen_sender_thins_nothing_out_and_its_delay_counts(storage) -> None:
    slow_at_first(storage, 0.4)
    generator = LoadGenerator(storage, rate=100)
    began = time()
    await generator.run(0.5)
    jobs = sorted(await storage.list(limit=1_000), key=lambda job: job.id)
    assert generator.sent == len(jobs) in (49, 50)
    for earlier, later in pairwise(jobs):
        assert later.created_ts - earlier.created_ts == pytest.approx(0.01, abs=1e-5)
    assert jobs[0].created_ts < began + 0.2
    assert 35 <= generator.late <= 50
    claimed = await storage.fetch_available_jobs_atomic("worker", 1_000)
    waits = [job.started_ts - job.created_ts for job in claimed]
    assert max(waits) >= 0.35


def kolmogorov_smirnov(gaps: list[float], rate: float) -> float:
    """The largest distance between the gaps' distribution and the exponential one."""
    many = len(gaps)
    expected = [1 - exp(-gap * rate) for gap in sorted(gaps)]
    return max(max(abs(share - n / many), abs(share - (n + 1) / many)) for n, share in enumerate(expected))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [10, 3_000])
def test_poisson_gaps_are_exponential_however_often_one_looks(storage, seed, steps) -> None:
    generator = LoadGenerator(storage, rate=1_000, arrivals="poisson", seed=seed)
    generator._due(BEGIN)
    found = [due for step in range(1, steps + 1) for due in generator._due(BEGIN + 5 * step / steps)]
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert kolmogorov_smirnov(gaps, 1_000) < 2.5 / sqrt(len(gaps))
    by_window = [0] * 500
    for due in found:
        by_window[min(int((due - BEGIN) * 100), 499)] += 1
    assert fmean(by_window) == pytest.approx(10, rel=0.1)
    assert pvariance(by_window) == pytest.approx(10, rel=0.5)


def test_a_metronome_is_no_poisson_process(storage) -> None:
    generator = LoadGenerator(storage, rate=1_000)
    generator._due(BEGIN)
    gaps = [later - earlier for earlier, later in pairwise(generator._due(BEGIN + 5))]
    assert kolmogorov_smirnov(gaps, 1_000) > 0.3


def test_a_rate_that_is_changed_all_the_time_holds_nothing_up(storage) -> None:
    generator = LoadGenerator(storage, rate=5)
    generator._due(BEGIN)
    sent = 0
    for step in range(1, 1_001):
        generator.rate = 5 + (step % 2) * 0.5
        sent += len(generator._due(BEGIN + step * 0.01))
    assert 50 <= sent <= 56


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_a_rate_counts_from_when_it_is_set(storage, arrivals) -> None:
    generator = LoadGenerator(storage, rate=0.001, arrivals=arrivals)
    generator._due(BEGIN)
    now = BEGIN + 50
    for rate, most in ((1_000, 1_100), (0, 1), (100, 140), (0.001, 1), (2_000, 2_200)):
        before = generator.rate
        assert len(generator._due(now)) <= (0 if before < 1 else 10)
        generator.rate = rate
        generator._due(now)
        sent = sum(len(generator._due(now + step / 100)) for step in range(1, 101))
        assert rate * 0.8 - 1 <= sent <= most
        now += 1


def test_a_new_rate_does_not_cost_the_jobs_that_were_due_before_it(storage) -> None:
    generator = LoadGenerator(storage, rate=100)
    generator._due(BEGIN)
    generator.rate = 1
    assert len(generator._due(BEGIN + 1)) in (99, 100)


async def test_a_pause_between_two_runs_owes_nothing(storage) -> None:
    generator = LoadGenerator(storage, rate=100)
    await generator.run(0.1)
    first = generator.sent
    await asyncio.sleep(0.5)
    await generator.run(0.1)
    assert 9 <= first <= 10
    assert 9 <= generator.sent - first <= 10
    assert generator.sent == len(await storage.list(limit=1_000))


def test_a_pause_between_stop_and_start_owes_nothing(storage) -> None:
    generator = LoadGenerator(storage, rate=2)
    for _ in range(3):
        assert generator.start().stop().join(LONG)
        sleep(0.6)
    assert generator.sent <= 2


def test_a_stop_that_comes_right_after_the_start_is_heard(storage) -> None:
    generator = LoadGenerator(storage, rate=1_000)
    for _ in range(20):
        assert generator.start().stop().join(LONG)
        assert not generator.is_running
    with LoadGenerator(storage, rate=1_000) as generator:
        pass
    assert not generator.is_running


def test_stopping_ends_a_burst_too(storage) -> None:
    generator = LoadGenerator(storage, rate=0).start()
    generator.burst(500_000)
    end = monotonic() + LONG
    while not generator.sent:
        assert monotonic() < end
        sleep(0.001)
    assert generator.stop().join(LONG)
    assert generator.sent < 500_000


async def test_a_burst_leaves_the_loop_to_others(storage) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    generator = LoadGenerator(storage, rate=0)
    generator.burst(50_000)
    await generator.run(0.01)
    task.cancel()
    assert generator.sent == 50_000
    assert turns >= 50


def test_bursts_from_several_threads_are_all_sent_and_none_twice(storage) -> None:
    generator = LoadGenerator(storage, rate=0)
    taken = 0
    over = threading.Event()

    def take() -> None:
        nonlocal taken
        while not over.is_set():
            taken += len(generator._due(BEGIN))

    taker = threading.Thread(target=take)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        taker.start()
        for _ in range(20_000):
            generator.burst(1)
    finally:
        sys.setswitchinterval(interval)
        over.set()
        taker.join()
    assert taken + len(generator._due(BEGIN)) == 20_000


def test_starting_twice_sends_once(storage) -> None:
    with LoadGenerator(storage, rate=0) as generator:
        assert generator.start() is generator
        threads = [thread for thread in threading.enumerate() if thread.name == "qml-nb load"]
        assert len(threads) == 1


async def test_what_is_sent_ends_as_it_was_meant_to(storage) -> None:
    mix = Mix(noop=4, sleep=1, sleep_seconds=0.001, failing=0.25)
    generator = LoadGenerator(storage, rate=2_000, mix=mix, arrivals="poisson", max_retries=0, queue="load")
    async with BackgroundJobServer(storage, synthetic_tasks(), queues=["load"], worker_count=50) as server:
        await generator.run(0.5)
        await server.drained(timeout=LONG)
    counts = await storage.get_job_counts()
    assert counts[JobState.SUCCEEDED] + counts[JobState.FAILED] == generator.sent
    assert 800 < generator.sent < 1_200
    assert counts[JobState.FAILED] / generator.sent == pytest.approx(0.25, abs=0.1)


async def test_jobs_carry_the_queue_and_the_retries_they_were_given(storage) -> None:
    generator = LoadGenerator(storage, rate=0, queue="bulk", max_retries=4)
    generator.burst(3)
    await generator.run(0.01)
    assert [(job.queue, job.max_retries) for job in await storage.list()] == [("bulk", 4)] * 3


@pytest.mark.parametrize("mix", ["noop", {"noop": 1}, Mix])
def test_a_mix_that_is_none_is_refused_at_once(storage, mix) -> None:
    with pytest.raises(InvalidValue, match="expected mix to be a Mix"):
        LoadGenerator(storage, mix=mix)
    generator = LoadGenerator(storage)
    with pytest.raises(InvalidValue, match="expected mix to be a Mix"):
        generator.mix = mix
    assert generator.mix == Mix()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"queue": ""}, "queue"), ({"max_retries": -1}, "max_retries"), ({"arrivals": "x"}, "arrivals")],
)
def test_other_options_that_can_not_be_are_refused_by_name(storage, options, named) -> None:
    with pytest.raises(InvalidValue, match=f"expected {named}"):
        LoadGenerator(storage, **options)


async def test_a_refused_job_is_not_sent_again_and_the_rest_goes_on() -> None:
    storage = MemoryStorage(max_jobs=20)
    generator = LoadGenerator(storage, rate=200)
    await generator.run(0.4)
    assert generator.sent + generator.refused in (79, 80)
    assert generator.sent <= 20
    await storage.delete((await storage.list())[0].id)
    before = generator.sent
    await generator.run(0.1)
    assert generator.sent > before
