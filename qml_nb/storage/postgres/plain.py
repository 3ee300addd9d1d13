"""One connection, for who looks at a database from outside the queue."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from qml_nb.storage.postgres.encryption import encryption
from qml_nb.storage.postgres.names import Names, read
from qml_nb.storage.postgres.schema import MIGRATIONS
from qml_nb.storage.postgres.unavailable import FAULTS, unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qml_nb.config import PostgresConfig

_MADE = re.compile(r"create (?:unlogged )?table (?:if not exists )?qml\.(\w+)")


@asynccontextmanager
async def postgres_connection(config: PostgresConfig) -> AsyncIterator[Any]:
    """Give a connection of asyncpg for as long as the block takes.

    Raises:
        StorageUnavailable: the server can't be reached, or a statement of the block failed.
    """
    options = {
        "timeout": config.connect_timeout,
        "command_timeout": config.command_timeout,
        **encryption(config, config.database_url),
    }
    try:
        connection = await asyncpg.connect(config.database_url, statement_cache_size=0, **options)
    except FAULTS as error:
        raise unavailable(error, config, opening=True) from error
    try:
        yield connection
    except FAULTS as error:
        connection.terminate()
        raise unavailable(error, config, opening=False) from error
    finally:
        with suppress(*FAULTS):
            await connection.close(timeout=config.command_timeout)


def postgres_tables(config: PostgresConfig) -> list[str]:
    """Return the names of the tables that an install has in its schema, the live one first."""
    kinds = dict.fromkeys(kind for file in MIGRATIONS.values() for kind in _MADE.findall(read(file)))
    names = Names(config.schema_name, config.table_name)
    return [names.of(kind).split('"')[3] for kind in (*kinds, "version")]
