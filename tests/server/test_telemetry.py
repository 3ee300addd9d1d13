"""What a server tells: exact counters, and phases that add up."""

from __future__ import annotations

import asyncio
from math import inf
from time import perf_counter_ns, time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qml_nb import Job, JobState, RetryPolicy
from qml_nb.job import Outcome
from qml_nb.measure import Histogram
from qml_nb.server.run import Run
from qml_nb.server.telemetry import PHASES, TICK, Meter, Snapshot, bucket, bucket_middle
from tests.server.waiting import run, until

PARTS = ("queue_wait", "slot_wait", "run", "settle")


class Told:
    """All snapshots of a server, in one."""

    def __init__(self) -> None:
        self.shots: list[Snapshot] = []

    def __call__(self, snapshot: Snapshot) -> None:
        self.shots.append(snapshot)

    @property
    def phases(self) -> dict[str, Histogram]:
        whole = {phase: Histogram() for phase in PHASES}
        for shot in self.shots:
            for phase, buckets in shot.phases.items():
                whole[phase].add(buckets)
        return whole


async def listen(serve, **options) -> Told:
    server = await serve(**options)
    server.listeners.append(told := Told())
    return told


@given(st.integers(0, 2**62))
def test_a_step_holds_its_duration_to_better_than_one_percent(ticks: int) -> None:
    middle = bucket_middle(bucket(ticks)) / TICK
    assert abs(middle - ticks) <= max(0.5, 0.01 * ticks) * (1 + 1e-9)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_steps_are_in_the_order_of_their_durations(one: int, other: int) -> None:
    assert bucket(min(one, other)) <= bucket(max(one, other))


@given(st.integers(0, 20_000))
def test_the_middle_of_a_step_lies_in_it(index: int) -> None:
    assert bucket(int(bucket_middle(index) / TICK + 1e-6)) == index


def test_steps_leave_no_gap() -> None:
    assert sorted({bucket(ticks) for ticks in range(100_000)}) == list(range(bucket(99_999) + 1))


async def test_the_phases_of_a_job_add_up_to_its_total(storage, registry, serve) -> None:
    @registry.task
    async def nap() -> None:
        await asyncio.sleep(0.05)

    job = Job("nap")
    await asyncio.sleep(0.03)  # it is late: that counts as queue wait
    told = await listen(serve)
    [job] = await run(storage, job)
    await until(lambda: told.phases["total"].count)
    phases = told.phases
    assert [phases[name].count for name in PHASES] == [1] * 5
    total = sum(phases[name].max for name in PARTS)
    assert total == pytest.approx(phases["total"].max, rel=0.02)
    assert phases["queue_wait"].max >= 0.029
    assert 0.049 <= phases["run"].max < 5
    wall = time() - job.created_ts
    assert phases["total"].max <= wall


async def test_waiting_for_a_slot_is_told_apart_from_waiting_in_the_queue(storage, registry, serve) -> None:
    @registry.task
    async def nap() -> None:
        await asyncio.sleep(0.1)

    told = await listen(serve, worker_count=1, fetch_batch_size=2)
    await run(storage, Job("nap"), Job("nap"))
    await until(lambda: told.phases["total"].count == 2)
    slot_wait = told.phases["slot_wait"].percentiles(50, 100)
    assert slot_wait[0] < 0.09 <= slot_wait[1]
    assert told.phases["total"].max >= 0.19


@pytest.mark.parametrize("how", ["schedule", "retry"])
async def test_queue_wait_counts_from_the_instant_that_a_job_was_due(storage, registry, serve, how) -> None:
    runs = 0

    @registry.task
    async def once_more() -> None:
        nonlocal runs
        runs += 1
        if how == "retry" and runs == 1:
            raise ValueError

    told = await listen(serve, retry=RetryPolicy.fixed(0.5), scheduler_poll_interval=0.01)
    job = Job("once_more", max_retries=1)
    if how == "schedule":
        await storage.schedule(job, delay=0.5)
    else:
        await storage.enqueue(job)
    await storage.drained(timeout=20)
    await until(lambda: told.phases["total"].count == (2 if how == "retry" else 1))
    assert told.phases["queue_wait"].max < 0.45


@given(st.integers(0, 2**44).flatmap(lambda most: st.tuples(st.integers(0, most), st.integers(0, most))))
def test_a_job_is_counted_in_the_steps_of_its_waits(ticks: tuple[int, int]) -> None:
    waited, held = ticks
    meter, started = Meter(), perf_counter_ns()
    job = replace(Job("note"), created_ts=0.0, started_ts=waited * TICK)
    meter.count(
        [Run(job, started - (held << 10), started, inf, started, Outcome(job.id, 1, JobState.SUCCEEDED))], [True]
    )
    assert dict(meter.slot_wait) == {bucket(held): 1}
    exact = [bucket(max(waited + by, 0)) for by in (-1, 0)]  # the seconds of a wait are a float
    assert next(iter(meter.queue_wait)) in exact
    assert set(meter.queue_wait.values()) == set(meter.total.values()) == {1}


async def test_a_clock_that_is_ahead_makes_no_wait_negative(storage, registry, serve) -> None:
    from datetime import UTC, datetime, timedelta

    registry.register("note", lambda: None)
    told = await listen(serve)
    await run(storage, Job("note", created_at=datetime.now(UTC) + timedelta(hours=1)))
    await until(lambda: told.phases["total"].count == 1)
    assert told.phases["queue_wait"].buckets == {0: 1}
    assert all(step >= 0 for shot in told.shots for buckets in shot.phases.values() for step in buckets)


async def test_counters_are_exact(storage, registry, serve) -> None:
    @registry.task
    async def work(kind: str) -> None:
        if kind != "good":
            raise ValueError(kind)

    told = await listen(serve, worker_count=5, retry=RetryPolicy.fixed(0), scheduler_poll_interval=0.01)
    kinds = {"good": (70, 0), "bad": (20, 0), "bad twice": (10, 1)}
    jobs = [Job("work", [kind], max_retries=retries) for kind, (many, retries) in kinds.items() for _ in range(many)]
    await run(storage, *jobs)
    await until(lambda: told.shots and told.shots[-1].finished == 100)
    last = told.shots[-1]
    assert (last.claimed, last.succeeded, last.failed, last.retried) == (110, 70, 30, 10)
    assert (last.handed_back, last.refused, last.busy, last.buffered, last.slots) == (0, 0, 0, 0, 5)
    assert told.phases["total"].count == 110


async def test_snapshots_come_about_ten_times_a_second(serve) -> None:
    told = await listen(serve)
    await until(lambda: len(told.shots) >= 6)
    span = told.shots[5].ts - told.shots[0].ts
    assert 0.4 < span < 5


async def test_the_last_snapshot_says_that_it_has_stopped(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    server = await serve(worker_count=3)
    server.listeners.append(told := Told())
    await run(storage, Job("note"))
    await server.stop()
    assert (told.shots[-1].slots, told.shots[-1].busy, told.shots[-1].succeeded) == (0, 0, 1)
    assert told.phases["total"].count == 1


async def test_snapshots_of_several_servers_and_instants_add_up(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    every = [await listen(serve) for _ in range(3)]
    for _ in range(3):
        await run(storage, *(Job("note") for _ in range(40)))
        await asyncio.sleep(0.11)
    await until(lambda: sum(told.shots[-1].succeeded for told in every) == 120)
    whole = Histogram()
    for told in every:
        whole = whole + told.phases["run"]
    assert whole.count == 120
    assert len({shot.server_id for told in every for shot in told.shots}) == 3


async def test_a_listener_that_raises_stops_neither_the_server_nor_its_telling(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    server = await serve()
    fails = 2

    def listener(_snapshot: Snapshot) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise ValueError("listener")

    server.listeners.append(listener)
    await until(lambda: fails < -2)
    [job] = await run(storage, Job("note"))
    assert job.state is JobState.SUCCEEDED


async def test_a_server_that_never_ran_has_an_empty_snapshot(storage, registry) -> None:
    from qml_nb import BackgroundJobServer

    shot = BackgroundJobServer(storage, registry).snapshot()
    assert (shot.slots, shot.busy, shot.claimed, shot.finished) == (0, 0, 0, 0)
    assert shot.phases == {phase: {} for phase in PHASES}
