"""What a PostgreSQL server says of itself is read in one call, and what a job costs it is the difference of two."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from qml_nb import Job, measure, open_storage
from qml_nb.errors import InvalidValue, StorageUnavailable, UnknownOption
from qml_nb.measure import PostgresReading, cost_per_job
from qml_nb.measure.postgres_reading import Holder, TableReading
from qml_nb.servers import LocalServers
from qml_nb.storage.storage import Storage
from tests.versions import PROGRAMS, version

JOBS = 2_000
PRELOADED = {"shared_preload_libraries": "pg_stat_statements", "max_prepared_transactions": "5"}


def read_postgres(url: str, **options: Any) -> PostgresReading:
    """Read what was counted by now: PostgreSQL 14 shows it half a second later."""
    if version().startswith("14."):
        time.sleep(0.6)
    return measure.read_postgres(url, **options)


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalServers]:
    with LocalServers() as servers:
        yield servers


@pytest.fixture(scope="module")
def plain(servers: LocalServers) -> str:
    """A server as it comes."""
    return servers.postgres(programs=PROGRAMS)


@pytest.fixture(scope="module")
def preloaded(servers: LocalServers) -> str:
    """A server that has pg_stat_statements."""
    return servers.postgres(options=PRELOADED, programs=PROGRAMS)


@pytest.fixture
async def url(preloaded: str) -> str:
    """A database of the test's own, with the extension."""
    name = f"test_{uuid4().hex}"
    async with connected(preloaded) as connection:
        await connection.execute(f"create database {name}")
    url = preloaded.rpartition("/")[0] + f"/{name}"
    async with connected(url) as connection:
        await connection.execute("create schema tools; create extension pg_stat_statements schema tools")
    return url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()  # tells the server what it counted


@asynccontextmanager
async def stored(url: str, many: int = 10, **options: Any) -> AsyncIterator[Storage]:
    async with await open_storage(url, **options) as storage:
        await storage.enqueue_many(Job("work", [number]) for number in range(many))
        yield storage


async def work_done(url: str, many: int, finished: int) -> None:
    async with stored(url, many) as storage:
        for job in await storage.claim("worker", None, finished, 30.0):
            await storage.complete(job)


def table(reading: PostgresReading, name: str) -> TableReading:
    [found] = [one for one in reading.tables if one.table == name]
    return found


async def test_a_reading_agrees_with_what_was_done(url) -> None:
    await work_done(url, 30, finished=20)

    reading = read_postgres(url)
    live, done = table(reading, "qml_jobs"), table(reading, "qml_jobs_done")
    assert (live.inserts, live.updates, live.deletes, live.live_rows, live.dead_rows) == (30, 20, 20, 10, 40)
    assert (done.inserts, done.updates, done.deletes, done.live_rows, done.dead_rows) == (20, 0, 0, 20, 0)
    assert live.hot_updates == 0
    assert live.autoanalyze_ts is None
    assert reading.dead_rows == sum(one.dead_rows for one in reading.tables) >= 40
    assert 0 < live.total_bytes < reading.database_bytes
    assert 0 < reading.hit_share < 1
    assert 0 < reading.ping_min_ms <= reading.ping_mean_ms <= reading.ping_max_ms
    assert reading.max_connections == 200
    assert reading.notes == reading.warnings == reading.holders == ()


async def test_when_a_table_was_vacuumed_and_analysed_is_told(url) -> None:
    async with stored(url), connected(url) as connection:
        await connection.execute("vacuum qml.qml_jobs")
        await connection.execute("analyze qml.qml_jobs_done")

    reading = read_postgres(url)
    live, done = table(reading, "qml_jobs"), table(reading, "qml_jobs_done")
    assert live.vacuum_ts == pytest.approx(reading.ts, abs=60)
    assert done.analyze_ts == pytest.approx(reading.ts, abs=60)
    assert live.analyze_ts is done.vacuum_ts is None


async def test_which_index_is_used_shows(url) -> None:
    async with stored(url) as storage:
        before = {one.index: one for one in read_postgres(url).indexes}
        await storage.claim("worker", None, 10, 30.0)
    after = {one.index: one for one in read_postgres(url).indexes}

    used = {name for name, one in after.items() if one.index_scans > before[name].index_scans}
    assert "qml_jobs_queue_priority_id_idx" in used
    assert "qml_jobs_done_expires_ts_idx" not in used
    assert after["qml_jobs_queue_priority_id_idx"].entries_read >= 10
    assert after["qml_jobs_queue_priority_id_idx"].table == "qml_jobs"
    assert all(one.index_bytes > 0 for one in after.values())


async def test_every_table_of_the_install_is_read_and_no_other(url) -> None:
    async with stored(url, 10), stored(url, 3, table_name="qml_jobs_test"), connected(url) as connection:
        made = {row[0] for row in await connection.fetch("select tablename from pg_tables where schemaname = 'qml'")}

    mine = {one.table for one in read_postgres(url).tables}
    assert mine == {name for name in made if not name.startswith("qml_jobs_test")}
    assert len(mine) == 13
    theirs = read_postgres(url, table_name="qml_jobs_test")
    assert table(theirs, "qml_jobs_test").inserts == 3


async def test_an_install_that_is_not_there_is_noted(url) -> None:
    reading = read_postgres(url, schema_name="elsewhere")

    assert (reading.tables, reading.indexes) == ((), ())
    assert "no table elsewhere.qml_jobs here; open_storage(url) makes it" in reading.notes


async def test_the_costliest_statements_come_first(url) -> None:
    await work_done(url, 30, finished=20)

    reading = read_postgres(url)
    calls = {one.query.partition("(")[0].rpartition(".")[2].strip('"'): one.calls for one in reading.statements}
    assert calls["qml_jobs_push"] == calls["qml_jobs_claim"] == 1
    assert calls["qml_jobs_settle"] == 20
    totals = [one.total_ms for one in reading.statements]
    assert totals == sorted(totals, reverse=True)
    assert all(one.mean_ms * one.calls == pytest.approx(one.total_ms) for one in reading.statements)
    assert reading.statement_calls == sum(one.calls for one in reading.statements)
    assert reading.statement_seconds == pytest.approx(sum(totals) / 1_000)
    first = read_postgres(url, statements=1)
    assert len(first.statements) == 1
    assert first.statement_calls == reading.statement_calls


async def test_statements_that_only_one_of_two_installs_ran_are_its_own(url) -> None:
    async with stored(url, schema_name="other"):
        pass

    assert read_postgres(url).statements == ()
    assert read_postgres(url).statement_calls == 0
    assert len(read_postgres(url, schema_name="other").statements) > 0


async def test_without_the_extension_a_note_says_how_to_get_it(plain) -> None:
    reading = read_postgres(plain)

    assert (reading.statements, reading.statement_calls, reading.statement_seconds) == ((), None, None)
    [note] = [note for note in reading.notes if "pg_stat_statements" in note]
    assert "not installed in this database" in note
    assert "create extension pg_stat_statements" in note


async def test_an_extension_that_is_not_loaded_is_noted(plain) -> None:
    async with connected(plain) as connection:
        await connection.execute("create extension pg_stat_statements")
        try:
            reading = read_postgres(plain)
        finally:
            await connection.execute("drop extension pg_stat_statements")

    assert reading.statement_calls is None
    assert any("not loaded" in note and "shared_preload_libraries" in note for note in reading.notes)


async def test_what_a_job_costs_is_the_difference_of_two_readings(url) -> None:
    async with stored(url):
        pass
    before = read_postgres(url)
    async with stored(url, JOBS):
        pass
    cost = cost_per_job(before, read_postgres(url), JOBS)

    assert 1 <= cost.inserts < 1.1
    assert cost.updates == cost.hot_updates == cost.deletes == 0
    assert 100 < cost.wal_bytes < 2_000
    assert 0 < cost.commits < 0.2
    assert cost.blocks > 1
    assert 0 < (cost.statements or 0) < 0.05
    assert (cost.statement_us or 0) > 0


async def test_without_the_extension_the_cost_of_statements_is_unknown(plain) -> None:
    cost = cost_per_job(read_postgres(plain), read_postgres(plain), 1)

    assert cost.statements is cost.statement_us is None
    assert cost.commits > 0


async def test_rows_are_tidy(url) -> None:
    async with holding(url):
        await work_done(url, 10, finished=5)
        rows = read_postgres(url).rows()

    assert all(set(row) == {"ts", "name", "value", "unit", "table", "index", "detail"} for row in rows)
    assert all(row["value"] is None or isinstance(row["value"], (int, float)) for row in rows)
    keys = [(row["name"], row["table"], row["index"], row["detail"]) for row in rows]
    assert len(set(keys)) == len(keys)
    units = {row["name"]: row["unit"] for row in rows}
    assert (units["total_bytes"], units["statement_total_ms"], units["held_seconds"]) == ("bytes", "ms", "s")
    found = {(row["name"], row["table"]): row["value"] for row in rows if row["index"] is row["detail"] is None}
    assert found["inserts", "qml_jobs"] == 10
    assert found["hit_share", None] > 0
    assert {row["detail"] for row in rows if row["name"] == "connections"} >= {"idle in transaction"}


@asynccontextmanager
async def holding(url: str, isolation: str = "repeatable_read") -> AsyncIterator[Any]:
    """Hold a snapshot in an idle transaction."""
    async with connected(url) as connection:
        transaction = connection.transaction(isolation=isolation)
        await transaction.start()
        await connection.execute("select count(*) from pg_class")
        yield connection
        await transaction.rollback()


async def test_who_holds_back_vacuum_is_warned_of_with_the_dead_rows_that_wait(url) -> None:
    async with holding(url) as connection:
        await work_done(url, 30, finished=20)
        pid = connection.get_server_pid()
        reading, patient = read_postgres(url, held_seconds=0.0), read_postgres(url, held_seconds=600.0)

    [holder] = reading.holders
    assert (holder.kind, holder.name, holder.state) == ("connection", str(pid), "idle in transaction")
    assert 0 < (holder.seconds or 0) < 600
    assert holder.transactions > 1
    [warning] = reading.warnings
    assert f"connection {pid} (idle in transaction) for" in warning
    assert f"{reading.dead_rows:,} wait in the tables" in warning
    assert reading.dead_rows >= 40
    assert (patient.holders[0].name, patient.warnings) == (str(pid), ())
    assert read_postgres(url, held_seconds=0.0).warnings == ()


async def test_a_transaction_that_wrote_holds_vacuum_back_too(url) -> None:
    async with holding(url, "read_committed") as connection:
        assert read_postgres(url).holders == ()
        await connection.execute("create table written ()")
        assert read_postgres(url).holders[0].state == "idle in transaction"


async def test_a_transaction_in_another_database_holds_nothing_back(url, preloaded) -> None:
    async with holding(preloaded):
        assert read_postgres(url, held_seconds=0.0).warnings == ()


async def test_a_prepared_transaction_that_nobody_ends_is_named(url) -> None:
    async with connected(url) as connection:
        await connection.execute("begin")
        await connection.execute("create table written ()")
        await connection.execute("prepare transaction 'forgotten'")
        [warning] = read_postgres(url, held_seconds=0.0).warnings
        await connection.execute("rollback prepared 'forgotten'")

    assert "prepared transaction forgotten (prepared)" in warning


@pytest.mark.parametrize(
    ("state", "seconds", "warned"),
    [("inactive", None, True), ("active", None, False), ("inactive", 61.0, True), ("inactive", 59.0, False)],
)
def test_a_replication_slot_is_warned_of_once_it_is_abandoned(state, seconds, warned) -> None:
    holder = Holder("replication slot", "standby", state, seconds, 7)

    assert holder.is_older(60.0) is warned
    assert ("unknown time" in str(holder)) is (seconds is None)


async def test_what_connections_wait_for_shows(url) -> None:
    async with connected(url) as first, connected(url) as second, connected(url) as watcher:
        await first.execute("select pg_advisory_lock(7)")
        waiting = asyncio.create_task(second.execute("select pg_advisory_lock(7)"))
        async with asyncio.timeout(10):
            while not await watcher.fetchval("select exists (select from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
        reading = read_postgres(url, pings=4)
        await first.execute("select pg_advisory_unlock(7)")
        await waiting

    assert reading.waits == {"Lock/advisory": 1.0}
    assert reading.connections == {"active": 1, "idle": 2}


async def test_an_ordinary_role_reads_what_it_may_and_is_told_what_it_may_not(url) -> None:
    await work_done(url, 30, finished=20)
    async with connected(url) as connection:
        await connection.execute("create role ordinary login")
    try:
        async with holding(url):
            ordinary = read_postgres(url.replace("postgres@", "ordinary@"), held_seconds=0.0)
            async with connected(url) as connection:
                await connection.execute("grant pg_read_all_stats to ordinary")
                await connection.execute("grant usage on schema tools to ordinary")
            trusted = read_postgres(url.replace("postgres@", "ordinary@"), held_seconds=0.0)
    finally:
        async with connected(url) as connection:
            await connection.execute("drop owned by ordinary; drop role ordinary")

    assert table(ordinary, "qml_jobs").inserts == table(trusted, "qml_jobs").inserts == 30
    assert (ordinary.statements, ordinary.statement_calls, ordinary.warnings) == ((), None, ())
    assert [(one.state, one.seconds) for one in ordinary.holders] == [("hidden", None)]
    assert ordinary.connections == {"hidden": 1}
    assert any("sees only what its own connections do; `grant pg_read_all_stats`" in note for note in ordinary.notes)
    assert any("may not read pg_stat_statements" in note for note in ordinary.notes)
    assert (trusted.notes, len(trusted.warnings), trusted.connections) == ((), 1, {"idle in transaction": 1})
    assert len(trusted.statements) >= 3


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StorageUnavailable, match=r"no connection to postgresql://me@127.0.0.1:1/db: .*check the URL"):
        read_postgres("postgresql://me@127.0.0.1:1/db")


async def test_a_frozen_server_is_given_up(servers) -> None:
    server = servers.server(servers.postgres(programs=PROGRAMS))
    async with connected(server.url) as connection:
        await connection.execute("select 1")
    server.freeze()
    try:
        with pytest.raises(StorageUnavailable, match=r"took no connection within 0.3 s \(connect_timeout\)"):
            read_postgres(server.url, connect_timeout=0.3)
    finally:
        server.thaw()
    assert read_postgres(server.url, connect_timeout=30).ts > 0


async def test_a_database_that_is_not_there_is_named(preloaded) -> None:
    with pytest.raises(StorageUnavailable, match="has no such database"):
        read_postgres(preloaded + "_missing")


async def test_what_can_not_be_is_refused(plain) -> None:
    with pytest.raises(InvalidValue, match="expected table_name to be a plain lower-case name"):
        read_postgres(plain, table_name="jobs; drop table jobs")
    with pytest.raises(InvalidValue, match="expected pings to be at least 1"):
        read_postgres(plain, pings=0)
    with pytest.raises(InvalidValue, match="expected database_url to be a URL"):
        read_postgres("localhost")
    with pytest.raises(UnknownOption, match="did you mean 'connect_timeout'"):
        read_postgres(plain, connect_timeou=1.0)
    with pytest.raises(InvalidValue, match="expected jobs"):
        cost_per_job(read_postgres(plain), read_postgres(plain), 0)
