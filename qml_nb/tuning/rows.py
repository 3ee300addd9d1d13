"""What the rows of the guide share, whichever storage they are about: how one runs, and the programs that they name."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from contextlib import asynccontextmanager
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec import Struct

from qml_nb import loops
from qml_nb.job import Job
from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence

    from qml_nb.storage.storage import Storage

    Run: TypeAlias = Callable[[LocalServers], Iterator["Row"]]

T = TypeVar("T")

RACE_JOBS, RACE_WORKERS = 1_000, 100
LOCK_TASKS = 1_000
FETCHES = 500
PRODUCERS = 50
CORES = os.cpu_count() or 1


class Row(Struct, frozen=True):
    """One figure of a row of the guide."""

    row: int
    what: str
    claim: str
    """What the guide says; empty where it gives a command and no figure."""
    value: float
    unit: str


def run_rows(table: Mapping[int, Run], numbers: Sequence[int] = ()) -> Iterator[Row]:
    """Run the rows with these numbers, or all of the table, on servers that are started for it.

    Raises:
        KeyError: the table has no such row.
    """
    wanted = dict.fromkeys(table[number] for number in numbers or table)
    with LocalServers() as servers:
        for run in wanted:
            yield from (one for one in run(servers) if not numbers or one.row in numbers)


def on_storage(url: str, work: Callable[[Storage], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Return what the work returns on a fresh storage."""

    async def run() -> T:
        async with fresh(url, **options) as storage:
            gc.collect()
            return await work(storage)

    return loops.run(run())


@asynccontextmanager
async def fresh(url: str, **options: Any) -> AsyncIterator[Storage]:
    """Open a storage that shares its server with others, and nothing else."""
    name = "schema_name" if url.startswith("postgres") else "key_prefix"
    async with await open_storage(url, **{name: f"row_{token_hex(4)}", **options}) as storage:
        yield storage


async def fill(storage: Storage, jobs: int) -> None:
    """Store so many jobs."""
    await storage.enqueue_many(Job("work", [number]) for number in range(jobs))


def percentile_rows(row: int, times: Sequence[float], claims: Mapping[float, str]) -> Iterator[Row]:
    """Give the percentiles of how long `enqueue` takes."""
    times = sorted(times)
    for percent, claim in claims.items():
        value = times[min(int(len(times) * percent / 100), len(times) - 1)]
        yield Row(row, f"enqueue under load of {PRODUCERS} producers, p{percent:g}", claim, value * 1_000, "ms")


async def enqueue_times(storage: Storage, jobs: int) -> list[float]:
    """Return the seconds that each `enqueue` took, of producers that wait for one before the next."""
    times: list[float] = []

    async def produce() -> None:
        for number in range(jobs // PRODUCERS):
            began = perf_counter()
            await storage.enqueue(Job("work", [number]))
            times.append(perf_counter() - began)

    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    return times


async def fetch_time(storage: Storage) -> float:
    """Return the mean seconds that one fetch of one job takes."""
    await fill(storage, FETCHES)
    began = perf_counter()
    for _ in range(FETCHES):
        assert await storage.fetch_and_lock_job("worker") is not None
    return (perf_counter() - began) / FETCHES


async def fetch_rate(storage: Storage) -> float:
    """Return how many fetches of one job a second so many tasks at once make."""

    async def fetch() -> None:
        for _ in range(FETCHES // PRODUCERS):
            await storage.fetch_and_lock_job("worker")

    await fill(storage, FETCHES)
    began = perf_counter()
    await asyncio.gather(*(fetch() for _ in range(PRODUCERS)))
    return FETCHES // PRODUCERS * PRODUCERS / (perf_counter() - began)


def race_rows(row: int, url: str) -> Iterator[Row]:
    """Let many workers fetch until nothing is left."""
    what = f"{RACE_WORKERS} workers fetch {RACE_JOBS:,} jobs"
    fetched, doubled = on_storage(url, _race)
    yield Row(row, f"{what}: fetched", f"{RACE_JOBS:,}", fetched, "jobs")
    yield Row(row, f"{what}: fetched twice", "0 %", doubled, "jobs")


async def _race(storage: Storage) -> tuple[int, int]:
    await fill(storage, RACE_JOBS)
    fetched: Counter[str] = Counter()

    async def work(number: int) -> None:
        while (job := await storage.fetch_and_lock_job(f"worker-{number}")) is not None:
            fetched[job.id] += 1

    await asyncio.gather(*(work(number) for number in range(RACE_WORKERS)))
    return len(fetched), sum(times - 1 for times in fetched.values())


def lock_rows(row: int, url: str, mean_claim: str) -> Iterator[Row]:
    """Let many tasks try one job's lock."""
    winners, mean, total = on_storage(url, _contention)
    what = f"{LOCK_TASKS:,} tasks try one job's lock once"
    yield Row(row, f"{what}: winners", "1", winners, "tasks")
    yield Row(row, f"{what}: mean wait", mean_claim, mean * 1_000, "ms")
    yield Row(row, f"{what}: in total", "", total * 1_000, "ms")


async def _contention(storage: Storage) -> tuple[int, float, float]:
    job = Job("work")
    await storage.enqueue(job)

    async def attempt(number: int) -> tuple[bool, float]:
        began = perf_counter()
        won = await storage.try_acquire_job_lock(job.id, f"worker-{number}", 30)
        return won, perf_counter() - began

    began = perf_counter()
    answers = await asyncio.gather(*(attempt(number) for number in range(LOCK_TASKS)))
    total = perf_counter() - began
    return sum(won for won, _ in answers), sum(took for _, took in answers) / LOCK_TASKS, total
