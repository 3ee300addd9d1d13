"""What one reading of a PostgreSQL server holds, and what a job cost between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from qml_nb.measure.units import unit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class TableReading(Struct, frozen=True):
    """What was done to a table since the statistics began, and how it is now. None: never, or it has no index."""

    table: str
    inserts: int
    updates: int
    hot_updates: int
    """Updates that touched no index."""
    deletes: int
    seq_scans: int
    seq_rows_read: int
    index_scans: int | None
    index_rows_fetched: int | None
    live_rows: int
    dead_rows: int
    vacuum_ts: float | None
    autovacuum_ts: float | None
    analyze_ts: float | None
    autoanalyze_ts: float | None
    total_bytes: int
    """With its indexes."""


class IndexReading(Struct, frozen=True):
    """How much an index was used since the statistics began."""

    table: str
    index: str
    index_scans: int
    entries_read: int
    index_rows_fetched: int
    index_bytes: int


class StatementReading(Struct, frozen=True):
    """What a statement cost since pg_stat_statements began."""

    query: str
    calls: int
    total_ms: float
    mean_ms: float
    max_ms: float
    rows: int
    wal_bytes: int


class Holder(Struct, frozen=True):
    """Who keeps vacuum from removing dead rows: a connection, a prepared transaction, a replication slot."""

    kind: str
    name: str
    """The process id of a connection, the name of anything else."""
    state: str
    seconds: float | None
    """Since when; None where the server does not know."""
    transactions: int
    """How many transactions began since."""

    def is_older(self, seconds: float) -> bool:
        """Whether it holds for longer; an abandoned slot does, however long that may be."""
        return self.state == "inactive" if self.seconds is None else self.seconds > seconds

    def __str__(self) -> str:
        since = "for an unknown time" if self.seconds is None else f"for {self.seconds:.0f} s"
        return f"{self.kind} {self.name} ({self.state}) {since}"


class PostgresReading(Struct, frozen=True):
    """Counters since the statistics began, and the state at an instant, of a database and of an install in it."""

    ts: float
    ping_min_ms: float
    ping_mean_ms: float
    ping_max_ms: float
    tables: tuple[TableReading, ...]
    indexes: tuple[IndexReading, ...]
    statements: tuple[StatementReading, ...]
    """Those that name the install, the costliest first; empty without pg_stat_statements."""
    statement_calls: int | None
    statement_seconds: float | None
    holders: tuple[Holder, ...]
    """The oldest first."""
    waits: dict[str, float]
    """How many connections were running, or waiting for what, on average while the round trips were timed."""
    connections: dict[str, int]
    max_connections: int
    commits: int
    rollbacks: int
    deadlocks: int
    conflicts: int
    blocks_hit: int
    blocks_read: int
    temp_bytes: int
    database_bytes: int
    wal_bytes: int
    notes: tuple[str, ...]
    """What could not be read, and how to get it."""
    warnings: tuple[str, ...]

    @property
    def hit_share(self) -> float:
        """Which share of the blocks was found in the server's cache; NaN before the first one."""
        blocks = self.blocks_hit + self.blocks_read
        return self.blocks_hit / blocks if blocks else float("nan")

    @property
    def dead_rows(self) -> int:
        """How many dead rows wait for vacuum in the tables of the install."""
        return sum(table.dead_rows for table in self.tables)

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a figure, as `pandas.DataFrame` takes them: instant, name, value, unit, and of what.

        Of what is told by `table`, `index` and `detail`: a statement, a wait, a state of connections, a holder.
        """
        return [
            {"ts": self.ts, **row} for row in (*self._of_the_server(), *self._of_the_install(), *self._of_details())
        ]

    def _of_the_server(self) -> Iterator[dict[str, Any]]:
        values = {name: value for name, value in asdict(self).items() if not isinstance(value, (tuple, dict))}
        values |= {"hit_share": self.hit_share, "dead_rows": self.dead_rows}
        del values["ts"]
        yield from _records(values)

    def _of_the_install(self) -> Iterator[dict[str, Any]]:
        for one in (*self.tables, *self.indexes):
            values = asdict(one)
            yield from _records(values, table=values.pop("table"), index=values.pop("index", None))

    def _of_details(self) -> Iterator[dict[str, Any]]:
        for statement in self.statements:
            values = asdict(statement)
            query = values.pop("query")
            yield from _records({f"statement_{name}": value for name, value in values.items()}, detail=query)
        for holder in self.holders:
            values = {"held_seconds": holder.seconds, "held_transactions": holder.transactions}
            yield from _records(values, detail=f"{holder.kind} {holder.name}")
        for name, found in (("busy", self.waits), ("connections", self.connections)):
            for detail, value in found.items():
                yield from _records({name: value}, detail=detail)

    def cost_since(self, before: PostgresReading, jobs: int) -> PostgresCost:
        """See `cost_per_job`."""

        def done(*names: str) -> float:
            return (_sum(self.tables, names) - _sum(before.tables, names)) / jobs

        return PostgresCost(
            wal_bytes=(self.wal_bytes - before.wal_bytes) / jobs,
            commits=(self.commits - before.commits) / jobs,
            inserts=done("inserts"),
            updates=done("updates"),
            hot_updates=done("hot_updates"),
            deletes=done("deletes"),
            rows_read=done("seq_rows_read", "index_rows_fetched"),
            blocks=(self.blocks_hit + self.blocks_read - before.blocks_hit - before.blocks_read) / jobs,
            statements=_difference(self.statement_calls, before.statement_calls, jobs),
            statement_us=_difference(self.statement_seconds, before.statement_seconds, jobs / 1e6),
        )


class PostgresCost(Struct, frozen=True):
    """What one job cost the server between two readings."""

    wal_bytes: float
    commits: float
    inserts: float
    updates: float
    hot_updates: float
    deletes: float
    rows_read: float
    """Rows of the install's tables that scans of table or index read."""
    blocks: float
    """Blocks looked for in the server's cache."""
    statements: float | None
    statement_us: float | None
    """None without pg_stat_statements."""


def _records(
    values: dict[str, Any], *, table: str | None = None, index: str | None = None, detail: str | None = None
) -> Iterator[dict[str, Any]]:
    place = {"table": table, "index": index, "detail": detail}
    for name, value in values.items():
        yield {"name": name, "value": value, "unit": unit_of(name), **place}


def _sum(tables: Iterable[TableReading], names: Iterable[str]) -> int:
    return sum(getattr(table, name) or 0 for table in tables for name in names)


def _difference(after: float | None, before: float | None, jobs: float) -> float | None:
    return None if after is None or before is None else (after - before) / jobs
