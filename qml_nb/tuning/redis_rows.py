"""The guide's rows about Redis: each can be run, and prints what is measured beside what the guide claims."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from contextlib import asynccontextmanager
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct
from redis.asyncio import Redis

from qml_nb import loops
from qml_nb.job import Job
from qml_nb.measure import cost_per_job, latency_history, read_redis
from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence

    from qml_nb.measure import RedisReading
    from qml_nb.storage.storage import Storage

JOBS = 50_000
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


Measured: TypeAlias = "Iterator[Row]"


def redis_rows(numbers: Sequence[int] = ()) -> Iterator[Row]:
    """Run the rows with these numbers, or all of them, on servers that are started for it.

    Raises:
        KeyError: there is no such row about Redis.
    """
    wanted = dict.fromkeys(ROWS[number] for number in numbers or ROWS)
    with LocalServers() as servers:
        for run in wanted:
            yield from (one for one in run(servers) if not numbers or one.row in numbers)


def _concurrent_on(url: str, row: int, where: str, claim: str) -> Row:
    rate = _run(url, _concurrent, pool_size=50)
    return Row(row, f"{JOBS:,} concurrent enqueues, pool of 50, {where}", claim, rate, "jobs/s")


def _on_a_server(servers: LocalServers) -> Measured:
    yield _concurrent_on(servers.redis(), 17, "one server", "12,500/s")


def _on_a_cluster(servers: LocalServers) -> Measured:
    yield _concurrent_on(servers.redis_cluster(3), 18, "cluster of 3", "28,000/s")


def _in_calls(servers: LocalServers) -> Measured:
    rate = _run(servers.redis_cluster(3), _in_hundreds)
    yield Row(19, "enqueue_many, 100 a call, cluster of 3", "35,000/s", rate, "jobs/s")


def _kept_on_disk(servers: LocalServers) -> Measured:
    url = servers.redis(options={"appendonly": "yes", "appendfsync": "everysec"})
    yield _concurrent_on(url, 20, "append-only file", "15,000/s")


def _latency(servers: LocalServers) -> Measured:
    times = sorted(_run(servers.redis(), _enqueue_times, pool_size=50))
    for percent, claim in ((50, "2.5 ms"), (95, "8.5 ms"), (99, "15 ms"), (99.9, "35 ms")):
        value = times[min(int(len(times) * percent / 100), len(times) - 1)]
        yield Row(21, f"enqueue under load of {PRODUCERS} producers, p{percent:g}", claim, value * 1_000, "ms")


def _atomic_fetch(servers: LocalServers) -> Measured:
    url = servers.redis()
    atomic, apart = _run(url, _fetch_time), loops.run(_apart(url))
    yield Row(22, "one job fetched by one atomic script, mean", "about 500 µs", atomic * 1e6, "µs")
    yield Row(22, "the same by separate commands (not safe), mean", "about 5 ms", apart * 1e6, "µs")


def _races(servers: LocalServers) -> Measured:
    what = f"{RACE_WORKERS} workers fetch {RACE_JOBS:,} jobs"
    fetched, doubled = _run(servers.redis(), _race)
    yield Row(31, f"{what}: fetched", f"{RACE_JOBS:,}", fetched, "jobs")
    yield Row(31, f"{what}: fetched twice", "0 %", doubled, "jobs")


def _lock(servers: LocalServers) -> Measured:
    winners, mean, total = _run(servers.redis(), _contention)
    what = f"{LOCK_TASKS:,} tasks try one job's lock once"
    yield Row(34, f"{what}: winners", "1", winners, "tasks")
    yield Row(34, f"{what}: mean wait", "2.5 ms", mean * 1_000, "ms")
    yield Row(34, f"{what}: in total", "", total * 1_000, "ms")


def _pool(servers: LocalServers) -> Measured:
    url = servers.redis()
    for size in dict.fromkeys((1, 3 * CORES, 50)):
        advice = " (3 × CPU)" if size == 3 * CORES else ""
        rate = _run(url, _calls_apart, pool_size=size, command_timeout=5.0, connection_timeout=10.0)
        yield Row(42, f"{PRODUCERS} tasks that fetch, pool of {size}{advice}", "3 × CPU", rate, "calls/s")


def _monitoring(servers: LocalServers) -> Measured:
    url = servers.redis()
    before = read_redis(url)
    _run(url, _in_hundreds)
    history = list(latency_history(url, seconds=1.0, interval=0.25))
    yield from _as_rows(history[-1], history)
    cost = cost_per_job(before, history[0], JOBS)
    for name in ("commands", "received_bytes", "script_us"):
        yield Row(58, f"a job enqueued costs, {name.replace('_', ' ')}", "", getattr(cost, name), "")


def _as_rows(last: RedisReading, history: Iterable[RedisReading]) -> Measured:
    pings = list(history)
    yield Row(57, "round trip, mean of each reading's mean", "", sum(p.ping_mean_ms for p in pings) / len(pings), "ms")
    yield Row(57, "round trip, longest", "", max(p.ping_max_ms for p in pings), "ms")
    yield Row(58, "keyspace_hits", "", last.keyspace_hits, "lookups")
    yield Row(58, "keyspace_misses", "", last.keyspace_misses, "lookups")
    yield Row(58, "total_commands_processed", "", last.commands, "commands")
    yield Row(59, f"used_memory with {JOBS:,} jobs waiting", "", last.memory_bytes / 2**20, "MiB")


Run: TypeAlias = "Callable[[LocalServers], Iterator[Row]]"
ROWS: dict[int, Run] = {
    17: _on_a_server,
    18: _on_a_cluster,
    19: _in_calls,
    20: _kept_on_disk,
    21: _latency,
    22: _atomic_fetch,
    31: _races,
    34: _lock,
    42: _pool,
    **dict.fromkeys((57, 58, 59), _monitoring),
}
"""What runs each row."""


def _run(url: str, work: Callable[[Storage], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with _fresh(url, **options) as storage:
            gc.collect()
            return await work(storage)

    return loops.run(run())


@asynccontextmanager
async def _fresh(url: str, **options: Any) -> AsyncIterator[Storage]:
    async with await open_storage(url, key_prefix=f"row-{token_hex(4)}", **options) as storage:
        yield storage


async def _concurrent(storage: Storage) -> float:
    began = perf_counter()
    await asyncio.gather(*(storage.enqueue(Job("work", [number])) for number in range(JOBS)))
    return JOBS / (perf_counter() - began)


async def _in_hundreds(storage: Storage) -> float:
    began = perf_counter()
    for _ in range(0, JOBS, 100):
        await storage.enqueue_many(Job("work", [number]) for number in range(100))
    return JOBS / (perf_counter() - began)


async def _enqueue_times(storage: Storage) -> list[float]:
    times: list[float] = []

    async def produce() -> None:
        for number in range(JOBS // PRODUCERS):
            began = perf_counter()
            await storage.enqueue(Job("work", [number]))
            times.append(perf_counter() - began)

    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    return times


async def _fetch_time(storage: Storage) -> float:
    await storage.enqueue_many(Job("work", [number]) for number in range(FETCHES))
    began = perf_counter()
    for _ in range(FETCHES):
        assert await storage.fetch_and_lock_job("worker") is not None
    return (perf_counter() - began) / FETCHES


async def _apart(url: str) -> float:
    """Fetch as a queue without scripts would: look, take, read, mark, note the lease."""
    client: Any
    async with Redis.from_url(url) as client:
        await client.rpush("apart", *range(FETCHES))
        began = perf_counter()
        for _ in range(FETCHES):
            [job] = await client.lrange("apart", 0, 0)
            await client.lrem("apart", 1, job)
            await client.hget("apart:jobs", job)
            await client.hset("apart:state", job, "processing")
            await client.zadd("apart:leases", {job: began})
        return (perf_counter() - began) / FETCHES


async def _race(storage: Storage) -> tuple[int, int]:
    await storage.enqueue_many(Job("work", [number]) for number in range(RACE_JOBS))
    fetched: Counter[str] = Counter()

    async def work(number: int) -> None:
        while (job := await storage.fetch_and_lock_job(f"worker-{number}")) is not None:
            fetched[job.id] += 1

    await asyncio.gather(*(work(number) for number in range(RACE_WORKERS)))
    return len(fetched), sum(times - 1 for times in fetched.values())


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


async def _calls_apart(storage: Storage) -> float:
    async def fetch() -> None:
        for _ in range(FETCHES // PRODUCERS):
            await storage.fetch_and_lock_job("worker")

    began = perf_counter()
    await asyncio.gather(*(fetch() for _ in range(PRODUCERS)))
    return FETCHES / (perf_counter() - began)
