"""Brings the database to the form that this version reads, once, however many processes ask for it at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qml_nb.errors import SchemaMismatch
from qml_nb.storage.postgres.names import read

if TYPE_CHECKING:
    from qml_nb.storage.postgres.link import Link
    from qml_nb.storage.postgres.names import Names

VERSION = 1
MIGRATIONS = {1: "schema"}
"""The file that leads to each version. Functions are dropped and made anew with every one of them."""
FUNCTIONS = (
    *(
        "clock",
        "wake",
        "open_queues",
        "turns",
        "make_room",
        "without_finished",
        "get",
        "lock_jobs",
        "unique_keys",
        "watch",
    ),
    *(
        "admit",
        "move",
        "drop_oldest",
        "push",
        "enter",
        "claim",
        "settle",
        "renew",
        "report",
        "sweep",
        "update",
        "erase",
    ),
    *("find", "peek", "counts", "locks", "limits", "records", "recurring"),
)
"""The files of functions, each after those that it calls."""
_MADE = re.compile(r"create or replace function qml\.(\w+)")


async def migrate(link: Link, names: Names) -> None:
    """Make what is missing, in one transaction. Does nothing where the version is this one."""
    if await version(link, names) != VERSION:
        await link.again_in_conflict(lambda: _migrate(link, names))


async def _migrate(link: Link, names: Names) -> None:
    async with link.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", names.channel)
        # Locking a table is when a session hears what others made: it may remember that there was no such schema.
        await connection.execute("lock table pg_catalog.pg_namespace in access share mode")
        await connection.execute(f'create schema if not exists "{names.schema}"')
        await connection.execute(names.fill("create table if not exists qml.version (version integer not null)"))
        found = await connection.fetchval(names.fill("select max(version) from qml.version")) or 0
        _check(found, names, least=0)
        for number in range(found + 1, VERSION + 1):
            await connection.execute(names.fill(read(MIGRATIONS[number])))
            await connection.execute(names.fill("insert into qml.version values ($1)"), number)
        if found < VERSION:
            await _make_functions(connection, names)


async def _make_functions(connection: Any, names: Names) -> None:
    """Put this version's functions in place of others with their names, which may take other arguments."""
    texts = [read(name) for name in FUNCTIONS]
    made = [f"{names.table}_{name}" for text in texts for name in _MADE.findall(text)]
    old = await connection.fetch(
        "select oid::regprocedure::text as name from pg_proc where pronamespace = $1::text::regnamespace and proname = any($2)",
        f'"{names.schema}"',
        made,
    )
    for row in old:
        await connection.execute(f"drop function {row['name']}")
    for text in texts:
        await connection.execute(names.fill(text))


async def require(link: Link, names: Names) -> None:
    """Raise unless the version is this one."""
    _check(await version(link, names), names, least=VERSION)


async def version(link: Link, names: Names) -> int:
    """Return the version that the database has; 0 for none."""
    if (await link.fetch("select to_regclass($1) is null", names.of("version")))[0][0]:
        return 0
    rows = await link.fetch(names.fill("select coalesce(max(version), 0) from qml.version"))
    return int(rows[0][0])


def _check(found: int, names: Names, *, least: int) -> None:
    if not least <= found <= VERSION:
        raise SchemaMismatch(f"{names.schema}.{names.table}", found, VERSION)
