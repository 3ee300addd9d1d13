"""The guide's rows about PostgreSQL: each can be run, and prints what is measured beside what the guide claims.

Commits reach the disk before they are answered, as the guide's "ACID" asks for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qml_nb import loops
from qml_nb.measure import cost_per_job, read_postgres
from qml_nb.tuning import enqueueing, postgres_plain
from qml_nb.tuning.postgres_indexes import index_rows
from qml_nb.tuning.rows import (
    CORES,
    PRODUCERS,
    Row,
    enqueue_times,
    fetch_rate,
    fetch_time,
    fill,
    lock_rows,
    on_storage,
    percentile_rows,
    race_rows,
    run_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qml_nb.measure import PostgresReading
    from qml_nb.servers import LocalServers
    from qml_nb.storage.storage import Storage
    from qml_nb.tuning.rows import Run

JOBS = 25_000
TASK_JOBS = 100
STATEMENTS = 3
SCHEMA = "qml"


def postgres_rows(numbers: Sequence[int] = ()) -> Iterator[Row]:
    """Run the rows with these numbers, or all of them, on servers that are started for it.

    Raises:
        KeyError: there is no such row about PostgreSQL.
    """
    return run_rows(ROWS, numbers)


def _throughput(servers: LocalServers) -> Iterator[Row]:
    rate = on_storage(servers.postgres(durable=True), _in_tasks, max_connections=50)
    what = f"{_program()}, max_connections 50"
    yield Row(23, what, "6,200/s", rate, "jobs/s")
    yield Row(25, f'{what}: the "optimised" one', "6,200/s", rate, "jobs/s")


def _by_default(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True)
    yield Row(24, f"{_program()}, default configuration", "3,200/s", on_storage(url, _in_tasks), "jobs/s")
    rate = loops.run(postgres_plain.insert_rate(url, JOBS, TASK_JOBS))
    yield Row(24, "an INSERT a job, pool of 10, not prepared, reset after each", "3,200/s", rate, "jobs/s")


def _in_batches(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True)
    rate = on_storage(url, _in_calls)
    yield Row(26, f"enqueue_many, {TASK_JOBS} a call", "8,500/s", rate, "jobs/s")
    rate = loops.run(postgres_plain.batch_rate(url, JOBS, TASK_JOBS))
    yield Row(26, f"an INSERT of {TASK_JOBS} rows on a table as the guide's", "8,500/s", rate, "jobs/s")


def _prepared(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True)
    rate = loops.run(postgres_plain.insert_rate(url, JOBS, TASK_JOBS, prepared=True))
    yield Row(27, "an INSERT a job, pool of 50, prepared, no reset", "7,800/s", rate, "jobs/s")


def _fetch_and_lock(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True)
    on_storage(url, lambda storage: fill(storage, JOBS), schema_name=SCHEMA)
    before = read_postgres(url, schema_name=SCHEMA)
    mean = on_storage(url, fetch_time, schema_name=SCHEMA)
    share = _index_share(before, read_postgres(url, schema_name=SCHEMA))
    yield Row(28, f"one of {JOBS:,} jobs fetched and locked, mean", "2 to 5 ms", mean * 1_000, "ms")
    yield Row(28, "share of the scans that used an index", "95 %", share * 100, "%")


def _index_share(before: PostgresReading, after: PostgresReading) -> float:
    first, last = before.tables[0], after.tables[0]
    by_index = (last.index_scans or 0) - (first.index_scans or 0)
    return by_index / (by_index + last.seq_scans - first.seq_scans)


def _latency(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True)
    times = on_storage(url, lambda storage: enqueue_times(storage, JOBS), max_connections=50)
    yield from percentile_rows(29, times, {50: "8 ms", 95: "25 ms", 99: "45 ms", 99.9: "85 ms"})


def _races(servers: LocalServers) -> Iterator[Row]:
    yield from race_rows(32, servers.postgres(durable=True))


def _lock(servers: LocalServers) -> Iterator[Row]:
    yield from lock_rows(35, servers.postgres(durable=True), "8 ms")


def _pool(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True)
    options = {"connect_timeout": 10.0, "idle_timeout": 300.0, "max_lifetime": 1_800.0}
    for size in dict.fromkeys((1, 4 * CORES, 50)):
        advice = " (4 × CPU)" if size == 4 * CORES else ""
        least = min(CORES, size)
        rate = on_storage(url, fetch_rate, max_connections=size, min_connections=least, **options)
        yield Row(41, f"{PRODUCERS} tasks that fetch, pool of {least} to {size}{advice}", "4 × CPU", rate, "calls/s")


def _monitoring(servers: LocalServers) -> Iterator[Row]:
    url = servers.postgres(durable=True, options={"shared_preload_libraries": "pg_stat_statements"})
    loops.run(postgres_plain.execute(url, "create extension pg_stat_statements"))
    on_storage(url, lambda storage: fill(storage, 1), schema_name=SCHEMA)
    before = read_postgres(url, schema_name=SCHEMA)
    on_storage(url, _stored_and_done, schema_name=SCHEMA)
    after = read_postgres(url, schema_name=SCHEMA)
    yield from _of_tables(after)
    yield from _of_statements(after)
    cost = cost_per_job(before, after, JOBS)
    for name in ("commits", "wal_bytes", "statement_us"):
        what = f"a job stored, fetched and completed costs, {name.replace('_', ' ')}"
        yield Row(56, what, "", getattr(cost, name), "")


async def _stored_and_done(storage: Storage) -> None:
    await _in_calls(storage)
    while jobs := await storage.claim("worker", None, TASK_JOBS, 60.0):
        await asyncio.gather(*(storage.complete(job) for job in jobs))


def _of_tables(reading: PostgresReading) -> Iterator[Row]:
    names = ("inserts", "updates", "deletes", "seq_scans", "seq_rows_read", "index_scans", "index_rows_fetched")
    for table in reading.tables[:2]:
        for name in names:
            yield Row(55, f"{table.table}: {name.replace('_', ' ')}", "", getattr(table, name), "")


def _of_statements(reading: PostgresReading) -> Iterator[Row]:
    for one in reading.statements[:STATEMENTS]:
        verb = one.query.partition("(")[0].split('"')[-2]
        yield Row(56, f"{verb}: total of {one.calls:,} calls", "", one.total_ms, "ms")
        yield Row(56, f"{verb}: mean", "", one.mean_ms, "ms")
        yield Row(56, f"{verb}: longest", "", one.max_ms, "ms")


ROWS: dict[int, Run] = {
    **dict.fromkeys((23, 25), _throughput),
    24: _by_default,
    26: _in_batches,
    27: _prepared,
    28: _fetch_and_lock,
    29: _latency,
    32: _races,
    35: _lock,
    41: _pool,
    **dict.fromkeys((46, 47, 48, 49), index_rows),
    **dict.fromkeys((55, 56), _monitoring),
}
"""What runs each row."""


def _program() -> str:
    return f"{JOBS:,} jobs in {JOBS // TASK_JOBS} tasks of {TASK_JOBS} enqueues"


async def _in_tasks(storage: Storage) -> float:
    return await enqueueing.from_producers(storage, JOBS, JOBS // TASK_JOBS)


async def _in_calls(storage: Storage) -> float:
    return await enqueueing.in_calls(storage, JOBS, TASK_JOBS)
