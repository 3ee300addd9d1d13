"""What the tests of the PostgreSQL storage start from: a real server, and storages that nobody else uses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from qml_nb.servers import LocalServer, LocalServers
from qml_nb.storage import open_storage
from qml_nb.storage.storage import Storage
from tests.versions import PROGRAMS

Connect = Callable[..., Awaitable[Storage]]


@pytest.fixture(scope="session")
def servers() -> Iterator[LocalServers]:
    """The servers of all these tests."""
    with LocalServers() as servers:
        yield servers


@pytest.fixture(scope="session")
def url(servers: LocalServers) -> str:
    """The address of a server that nobody freezes or stops."""
    return servers.postgres(programs=PROGRAMS)


@pytest.fixture(scope="session")
def talkative(servers: LocalServers) -> LocalServer:
    """A server that writes down what it is asked."""
    return servers.server(servers.postgres(programs=PROGRAMS, options={"log_statement": "all"}))


@pytest.fixture
def schema() -> str:
    """A schema of the test's own."""
    return f"test_{uuid4().hex[:20]}"


@pytest.fixture
async def connect(schema: str) -> AsyncIterator[Connect]:
    """The way to open a storage of the test's own, which closes after it: `await connect(url, **options)`."""
    async with AsyncExitStack() as opened:

        async def connect(url: str, **options: Any) -> Storage:
            storage = await open_storage(url, **{"schema_name": schema, "max_connections": 5, **options})
            opened.push_async_callback(storage.close)
            return storage

        yield connect


@pytest.fixture
async def storage(connect: Connect, url: str) -> Storage:
    """An empty storage of the test's own."""
    return await connect(url)


@pytest.fixture
async def direct(url: str) -> AsyncIterator[Any]:
    """A connection of the test's own to the server of `url`."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def watcher(url: str) -> AsyncIterator[Any]:
    """Another one, never in a transaction: inside one `pg_stat_activity` stands still."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()
