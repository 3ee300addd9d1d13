"""How fast the memory storage is, beside what Python itself can do with a dict, a deque and a coroutine."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from threading import Lock
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Self

from qml_nb import loops
from qml_nb.job import Job, Outcome
from qml_nb.states import SUCCEEDED
from qml_nb.storage import MemoryStorage
from qml_nb.tuning.drain import drain_rate
from qml_nb.tuning.figures import Figure, figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS = 100_000
PAIRS = 10_000
MILLION = 1_000_000
_FEW = 10_000
_NEW_PYTHON = sys.version_info >= (3, 12)
WORKERS = (1, 4, 16, 64)


def memory_figures(repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Measure the memory storage; `say` is told what comes next. A figure and its limit take turns, run by run."""
    say("enqueue, one by one")
    yield _enqueue(repeats)
    say("create and enqueue")
    yield _create_and_enqueue(repeats)
    say("enqueue and fetch, in pairs")
    yield from _pairs(repeats)
    say(f"drain with {', '.join(map(str, WORKERS))} workers, in turns")
    yield from _drains(repeats)
    say("a million jobs waiting")
    yield from _million()


def _enqueue(repeats: int) -> Figure:
    both = [(loops.run(_enqueue_rate()), _bare_rate()) for _ in range(repeats)]
    return figure(
        f"await storage.enqueue(job), one by one, {JOBS:,} jobs made before",
        [rate for rate, _ in both],
        "jobs/s",
        goal=500_000 if _NEW_PYTHON else 400_000,
        limits=[bare for _, bare in both],
        limit_is="put(job): dict and deque under a lock",
        share_goal=0.3,
    )


async def _enqueue_rate() -> float:
    jobs = _jobs(JOBS)
    async with MemoryStorage() as storage:
        began = _begin()
        for job in jobs:
            await storage.enqueue(job)
        return JOBS / (perf_counter() - began)


class _Bare:
    """The least that a queue in memory can be: a job is found by id, and next in line."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.line: deque[Job] = deque()
        self.lock = Lock()

    def put(self, job: Job) -> None:
        with self.lock:
            self.jobs[job.id] = job
            self.line.append(job)

    def take(self) -> Job:
        with self.lock:
            return self.line.popleft()


def _bare_rate() -> float:
    jobs, bare = _jobs(JOBS), _Bare()
    began = _begin()
    for job in jobs:
        bare.put(job)
    return JOBS / (perf_counter() - began)


def _create_and_enqueue(repeats: int) -> Figure:
    both = [(loops.run(_create_and_enqueue_rate()), _create_rate()) for _ in range(repeats)]
    return figure(
        "Job(…) created and enqueued, one by one",
        [rate for rate, _ in both],
        "jobs/s",
        goal=200_000,
        limits=[limit for _, limit in both],
        limit_is="Job(…) alone",
    )


async def _create_and_enqueue_rate() -> float:
    async with MemoryStorage() as storage:
        began = _begin()
        for number in range(JOBS):
            await storage.enqueue(Job("noop", [number]))
        return JOBS / (perf_counter() - began)


def _create_rate() -> float:
    began = _begin()
    for number in range(JOBS):
        Job("noop", [number])
    return JOBS / (perf_counter() - began)


def _pairs(repeats: int) -> Iterator[Figure]:
    runs = [loops.run(_pair_times()) for _ in range(repeats)]
    limits = [_bare_pair_times() for _ in range(repeats)]
    for percent, goal in ((50, 6.0), (99, 15.0), (99.9, 100.0)):
        yield figure(
            f"enqueue + fetch_and_lock_job, {PAIRS:,} pairs, p{percent:g}",
            [_percentile(run, percent) for run in runs],
            "µs",
            goal=goal,
            at_least=False,
            limits=[_percentile(run, percent) for run in limits],
            limit_is="put(job) and take()",
        )


async def _pair_times() -> list[float]:
    times: list[float] = []
    async with MemoryStorage() as storage:
        for number in range(PAIRS):
            job = Job("noop", [number])
            began = perf_counter_ns()
            await storage.enqueue(job)
            claimed = await storage.fetch_and_lock_job("worker-1")
            times.append((perf_counter_ns() - began) / 1_000)
            assert claimed is not None
            await storage.complete(claimed)
    return times


def _bare_pair_times() -> list[float]:
    times: list[float] = []
    bare = _Bare()
    for number in range(PAIRS):
        job = Job("noop", [number])
        began = perf_counter_ns()
        bare.put(job)
        bare.take()
        times.append((perf_counter_ns() - began) / 1_000)
    return times


def _drains(repeats: int) -> Iterator[Figure]:
    rounds = [
        [(loops.run(_drain_rate(workers)), loops.run(_bare_drain_rate())) for workers in WORKERS]
        for _ in range(repeats)
    ]
    for workers, both in zip(WORKERS, zip(*rounds, strict=True), strict=True):
        yield figure(
            f"server draining {JOBS:,} no-op async jobs, {workers} workers",
            [rate for rate, _ in both],
            "jobs/s",
            goal=200_000 if _NEW_PYTHON else 100_000,
            limits=[limit for _, limit in both],
            limit_is="take(), then a task of its own",
        )


async def _drain_rate(workers: int) -> float:
    async with MemoryStorage() as storage:
        await storage.enqueue_many(_jobs(JOBS))
        return await drain_rate(storage, JOBS, workers)


async def _bare_drain_rate() -> float:
    async def noop(_number: int) -> None: ...

    bare = _Bare()
    for job in _jobs(JOBS):
        bare.put(job)
    began = _begin()
    for _ in range(JOBS):
        await asyncio.create_task(noop(*bare.take().args))
    return JOBS / (perf_counter() - began)


def _million() -> Iterator[Figure]:
    few, many, pause, size = loops.run(_fill_up())
    for what, rate, base in zip(("enqueue", "claim, one by one", "claim, 100 at a time"), many, few, strict=True):
        yield figure(
            f"{MILLION:,} jobs waiting: {what}",
            [rate],
            "jobs/s",
            limits=[base],
            limit_is=f"the same with {_FEW:,} waiting",
            share_goal=0.8,
        )
    yield figure(
        "longest pause on the way there: one enqueue, or one garbage collection",
        [pause],
        "ms",
        goal=50.0,
        at_least=False,
    )
    yield figure("memory a waiting job, arguments not counted", [size], "bytes", goal=420.0, at_least=False)


async def _fill_up() -> tuple[list[float], list[float], float, float]:
    storage = MemoryStorage(max_jobs=None)
    await storage.enqueue_many(_jobs(_FEW))
    few = await _rates(storage)
    gc.collect()
    before = _resident()
    longest = 0.0
    with _Pauses() as pauses:
        for number in range(MILLION):
            job = Job("noop", [number])
            began = perf_counter()
            await storage.enqueue(job)
            longest = max(longest, perf_counter() - began)
    size = (_resident() - before) / MILLION - sys.getsizeof(b"[123456]")
    many = await _rates(storage)
    return few, many, max(longest, pauses.longest) * 1_000, size


async def _rates(storage: MemoryStorage) -> list[float]:
    """Enqueue and claim as many jobs as do not change what waits by much; the best of five, as pauses have their row."""
    return [max(rates) for rates in zip(*[await _round(storage) for _ in range(5)], strict=True)]


async def _round(storage: MemoryStorage) -> tuple[float, float, float]:
    jobs = _jobs(2 * _FEW)
    began = perf_counter()
    for job in jobs:
        await storage.enqueue(job)
    enqueued = perf_counter()
    single = [await storage.fetch_and_lock_job("bench") for _ in range(_FEW)]
    one_by_one = perf_counter()
    batches = [await storage.fetch_available_jobs_atomic("bench", 100) for _ in range(_FEW // 100)]
    at_once = perf_counter()
    claimed = [job for job in (*single, *(job for batch in batches for job in batch)) if job is not None]
    assert len(claimed) == 2 * _FEW
    await storage.settle([Outcome(job.id, job.claim_id, SUCCEEDED) for job in claimed])
    return 2 * _FEW / (enqueued - began), _FEW / (one_by_one - enqueued), _FEW / (at_once - one_by_one)


class _Pauses:
    """Times the collections of Python's garbage collector."""

    longest = 0.0
    _began = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.longest = max(self.longest, perf_counter() - self._began)


def _jobs(many: int) -> list[Job]:
    return [Job("noop", [number]) for number in range(many)]


def _begin() -> float:
    gc.collect()
    return perf_counter()


def _percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(int(len(values) * percent / 100), len(values) - 1)]


def _resident() -> float:
    """Bytes of memory that this process holds."""
    import psutil

    return float(psutil.Process().memory_info().rss)
