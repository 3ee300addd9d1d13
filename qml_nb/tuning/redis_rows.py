"""The guide's rows about Redis: each can be run, and prints what is measured beside what the guide claims."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from qml_nb import loops
from qml_nb.measure import cost_per_job, latency_history, read_redis
from qml_nb.tuning import enqueueing, rows
from qml_nb.tuning.rows import (
    CORES,
    PRODUCERS,
    Row,
    enqueue_times,
    fetch_rate,
    fetch_time,
    lock_rows,
    on_storage,
    percentile_rows,
    race_rows,
    run_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qml_nb.measure import RedisReading
    from qml_nb.servers import LocalServers
    from qml_nb.storage.storage import Storage
    from qml_nb.tuning.rows import Run

JOBS = 50_000


def redis_rows(numbers: Sequence[int] = ()) -> Iterator[Row]:
    """Run the rows with these numbers, or all of them, on servers that are started for it.

    Raises:
        KeyError: there is no such row about Redis.
    """
    return run_rows(ROWS, numbers)


def _concurrent_on(url: str, row: int, where: str, claim: str) -> Row:
    rate = on_storage(url, lambda storage: enqueueing.gathered(storage, JOBS), pool_size=50)
    return Row(row, f"{JOBS:,} concurrent enqueues, pool of 50, {where}", claim, rate, "jobs/s")


def _on_a_server(servers: LocalServers) -> Iterator[Row]:
    yield _concurrent_on(servers.redis(), 17, "one server", "12,500/s")


def _on_a_cluster(servers: LocalServers) -> Iterator[Row]:
    yield _concurrent_on(servers.redis_cluster(3), 18, "cluster of 3", "28,000/s")


def _in_calls(servers: LocalServers) -> Iterator[Row]:
    rate = on_storage(servers.redis_cluster(3), _in_hundreds)
    yield Row(19, "enqueue_many, 100 a call, cluster of 3", "35,000/s", rate, "jobs/s")


def _kept_on_disk(servers: LocalServers) -> Iterator[Row]:
    url = servers.redis(options={"appendonly": "yes", "appendfsync": "everysec"})
    yield _concurrent_on(url, 20, "append-only file", "15,000/s")


def _latency(servers: LocalServers) -> Iterator[Row]:
    times = on_storage(servers.redis(), lambda storage: enqueue_times(storage, JOBS), pool_size=50)
    yield from percentile_rows(21, times, {50: "2.5 ms", 95: "8.5 ms", 99: "15 ms", 99.9: "35 ms"})


def _atomic_fetch(servers: LocalServers) -> Iterator[Row]:
    url = servers.redis()
    atomic, apart = on_storage(url, fetch_time), loops.run(_apart(url))
    yield Row(22, "one job fetched by one atomic script, mean", "about 500 µs", atomic * 1e6, "µs")
    yield Row(22, "the same by separate commands (not safe), mean", "about 5 ms", apart * 1e6, "µs")


def _races(servers: LocalServers) -> Iterator[Row]:
    yield from race_rows(31, servers.redis())


def _lock(servers: LocalServers) -> Iterator[Row]:
    yield from lock_rows(34, servers.redis(), "2.5 ms")


def _pool(servers: LocalServers) -> Iterator[Row]:
    url = servers.redis()
    for size in dict.fromkeys((1, 3 * CORES, 50)):
        advice = " (3 × CPU)" if size == 3 * CORES else ""
        rate = on_storage(url, fetch_rate, pool_size=size, command_timeout=5.0, connection_timeout=10.0)
        yield Row(42, f"{PRODUCERS} tasks that fetch, pool of {size}{advice}", "3 × CPU", rate, "calls/s")


def _monitoring(servers: LocalServers) -> Iterator[Row]:
    url = servers.redis()
    before = read_redis(url)
    on_storage(url, _in_hundreds)
    history = list(latency_history(url, seconds=1.0, interval=0.25))
    yield from _as_rows(history[-1], history)
    cost = cost_per_job(before, history[0], JOBS)
    for name in ("commands", "received_bytes", "script_us"):
        yield Row(58, f"a job enqueued costs, {name.replace('_', ' ')}", "", getattr(cost, name), "")


def _as_rows(last: RedisReading, history: Iterable[RedisReading]) -> Iterator[Row]:
    pings = list(history)
    yield Row(57, "round trip, mean of each reading's mean", "", sum(p.ping_mean_ms for p in pings) / len(pings), "ms")
    yield Row(57, "round trip, longest", "", max(p.ping_max_ms for p in pings), "ms")
    yield Row(58, "keyspace_hits", "", last.keyspace_hits, "lookups")
    yield Row(58, "keyspace_misses", "", last.keyspace_misses, "lookups")
    yield Row(58, "total_commands_processed", "", last.commands, "commands")
    yield Row(59, f"used_memory with {JOBS:,} jobs waiting", "", last.memory_bytes / 2**20, "MiB")


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


async def _in_hundreds(storage: Storage) -> float:
    return await enqueueing.in_calls(storage, JOBS, 100)


async def _apart(url: str) -> float:
    """Fetch as a queue without scripts would: look, take, read, mark, note the lease."""
    client: Any
    async with Redis.from_url(url) as client:
        await client.rpush("apart", *range(rows.FETCHES))
        began = perf_counter()
        for _ in range(rows.FETCHES):
            [job] = await client.lrange("apart", 0, 0)
            await client.lrem("apart", 1, job)
            await client.hget("apart:jobs", job)
            await client.hset("apart:state", job, "processing")
            await client.zadd("apart:leases", {job: began})
        return (perf_counter() - began) / rows.FETCHES
