"""What a PostgreSQL server says of itself: tables, indexes, statements, waits, and who keeps vacuum from its work."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, TypeVar

from asyncpg import (
    InsufficientPrivilegeError,
    ObjectNotInPrerequisiteStateError,
    PostgresError,
    UndefinedColumnError,
    UndefinedTableError,
)
from msgspec import Struct, convert

from qml_nb.config import PostgresConfig
from qml_nb.measure.postgres_reading import Holder, IndexReading, PostgresReading, StatementReading, TableReading
from qml_nb.storage import postgres_connection, postgres_tables
from qml_nb.storage.sync import run_sync
from qml_nb.validate import check_int, check_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T", bound=Struct)

_EXTENSION = (
    "select nspname from pg_extension join pg_namespace n on n.oid = extnamespace where extname = 'pg_stat_statements'"
)
_GET = "set shared_preload_libraries = 'pg_stat_statements', restart the server, and run `create extension pg_stat_statements`"
_NOT_MADE = f"pg_stat_statements is not installed in this database: no statements; {_GET}"
_REFUSED = "this role may not read pg_stat_statements; `grant pg_read_all_stats` to it, and usage of its schema"
_FAULTS: dict[type[PostgresError], str] = {
    ObjectNotInPrerequisiteStateError: f"pg_stat_statements is not loaded: no statements; {_GET}",
    UndefinedColumnError: "pg_stat_statements is older than the server; run `alter extension pg_stat_statements update`",
    UndefinedTableError: _REFUSED,
    InsufficientPrivilegeError: _REFUSED,
}
_NO_STATEMENTS = {"statements": (), "statement_calls": None, "statement_seconds": None}
_HIDDEN = "this role sees only what its own connections do; `grant pg_read_all_stats` to it for all"


def read_postgres(
    url: str,
    *,
    schema_name: str = "qml",
    table_name: str = "qml_jobs",
    pings: int = 20,
    statements: int = 20,
    held_seconds: float = 60.0,
    **options: Any,
) -> PostgresReading:
    """Read a database, PostgreSQL 14 or newer, and an install of this library in it.

    What the role may not see is empty or None, and `notes` says so. Counters come late: a connection tells what it
    counted each second, after ten seconds of idling, and when it is closed; PostgreSQL 14 shows it half a second later still.

    Args:
        url: as for `open_storage`.
        schema_name: as in `PostgresConfig`.
        table_name: as in `PostgresConfig`.
        pings: how many round trips are timed, and how often it is looked what connections wait for.
        statements: how many statements are told.
        held_seconds: how long somebody may keep vacuum from removing dead rows before `warnings` tells.
        options: further ones of `PostgresConfig`, as `connect_timeout`.

    Raises:
        StorageUnavailable: it can't be reached, or does not answer.
    """
    check_int("pings", pings, 1)
    check_int("statements", statements, 0)
    check_seconds("held_seconds", held_seconds, above=False)
    config = PostgresConfig(database_url=url, schema_name=schema_name, table_name=table_name, **options)
    reading: PostgresReading = run_sync(_read(config, pings, statements, held_seconds))
    return reading


async def _read(config: PostgresConfig, pings: int, statements: int, held_seconds: float) -> PostgresReading:
    async with postgres_connection(config) as connection:
        trips, waits = await _pings(connection, pings)
        [database] = await connection.fetch(_query("database"))
        figures = dict(database)
        notes = [] if figures.pop("sees_all") else [_HIDDEN]
        place = config.schema_name, postgres_tables(config)
        tables = _as(TableReading, await connection.fetch(_query("tables"), *place))
        if not tables:
            notes.append(f"no table {config.schema_name}.{config.table_name} here; open_storage(url) makes it")
        holders = _as(Holder, await connection.fetch(_query("holders")))
        return PostgresReading(
            ts=time(),
            ping_min_ms=min(trips),
            ping_mean_ms=sum(trips) / len(trips),
            ping_max_ms=max(trips),
            tables=tables,
            indexes=_as(IndexReading, await connection.fetch(_query("indexes"), *place)),
            holders=holders,
            waits=waits,
            connections=dict(await connection.fetch(_query("connections"))),
            **figures,
            **await _statements(connection, config, statements, notes),
            notes=tuple(notes),
            warnings=tuple(_warnings(holders, tables, held_seconds)),
        )


async def _pings(connection: Any, many: int) -> tuple[list[float], dict[str, float]]:
    trips, seen = [], Counter[str]()
    for _ in range(many):
        began = perf_counter()
        await connection.execute("select 1")
        trips.append((perf_counter() - began) * 1_000)
        seen.update(dict(await connection.fetch(_query("waits"))))
    return trips, {event: times / many for event, times in seen.most_common()}


async def _statements(connection: Any, config: PostgresConfig, many: int, notes: list[str]) -> dict[str, Any]:
    """Return what pg_stat_statements tells; where it does not, a note says why."""
    try:
        schema = await connection.fetchval(_EXTENSION)
        if schema is None:
            notes.append(_NOT_MADE)
            return dict(_NO_STATEMENTS)
        async with connection.transaction():  # behind a pooler, a setting of the session would be left to others
            await connection.execute("select set_config('search_path', quote_ident($1), true)", schema)
            rows = await connection.fetch(_query("statements"), f"{config.schema_name}.{config.table_name}", many)
    except tuple(_FAULTS) as error:
        notes.append(_FAULTS[type(error)])
        return dict(_NO_STATEMENTS)
    return {
        "statements": _as(StatementReading, rows),
        "statement_calls": rows[0]["all_calls"] if rows else 0,
        "statement_seconds": rows[0]["all_ms"] / 1_000 if rows else 0.0,
    }


def _warnings(holders: Iterable[Holder], tables: Iterable[TableReading], seconds: float) -> list[str]:
    dead = sum(table.dead_rows for table in tables)
    what = f"keeps vacuum from removing dead rows, of which {dead:,} wait in the tables of this install; end it"
    return [f"{holder} {what}" for holder in holders if holder.is_older(seconds)]


def _as(kind: type[T], rows: Sequence[Any]) -> tuple[T, ...]:
    return tuple(convert(dict(row), kind) for row in rows)


@cache
def _query(name: str) -> str:
    return (files("qml_nb.measure") / "postgres" / f"{name}.sql").read_text("utf-8")
