"""What the fault tests start from: servers of their own, which they may kill, freeze and restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from qml_nb import PostgresStorage, RedisStorage, Storage
from qml_nb.servers import LocalServer, LocalServers
from tests.versions import PROGRAMS

Connect = Callable[..., Storage]
"""Makes one more storage of the test's own keys or schema, at a URL; takes options of `RedisConfig` or `PostgresConfig`."""


@pytest.fixture
def servers() -> Iterator[LocalServers]:
    """Servers that are stopped after the test."""
    with LocalServers() as servers:
        yield servers


def start(servers: LocalServers, kind: str) -> str:
    """Start a durable server, or a cluster of three such; returns the address."""
    if kind == "postgres":
        return servers.postgres(durable=True, programs=PROGRAMS)
    return servers.redis_cluster(3, durable=True) if kind == "cluster" else servers.redis(durable=True)


@pytest.fixture(params=["redis", "cluster", "postgres"])
def url(request: pytest.FixtureRequest, servers: LocalServers) -> str:
    """The address of a server of each kind."""
    return start(servers, request.param)


@pytest.fixture(params=["redis", "postgres"])
def durable(request: pytest.FixtureRequest, servers: LocalServers) -> LocalServer:
    """A server that writes to its disk before it answers."""
    return servers.server(start(servers, request.param))


ASYNCPG_FORGETS = ("unexpected connection_lost() call",)
"""It leaves a future behind, now and then, when a connection is given up just as it asks for TLS."""


@pytest.fixture
def forgiven() -> tuple[str, ...]:
    """What errors beside a test may say: none may be."""
    return ()


@pytest.fixture
async def connect(forgiven: tuple[str, ...]) -> AsyncIterator[Connect]:
    """Makes storages; after the test they are closed, and nothing may have gone wrong beside it."""
    prefix, wrong = f"faults-{uuid4().hex}", []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with AsyncExitStack() as stack:

        def new(url: str, **options: Any) -> Storage:
            if url.startswith("postgresql:"):
                storage: Storage = PostgresStorage(url, **{"schema_name": prefix.replace("-", "_")[:40]} | options)
            else:
                storage = RedisStorage(url=url, **{"key_prefix": prefix} | options)
            stack.push_async_callback(storage.close)
            return storage

        yield new
    await asyncio.sleep(0)
    assert [context for context in wrong if str(context.get("exception")) not in forgiven] == []


@pytest.fixture
def storage(connect: Connect, url: str) -> Storage:
    """A storage on each kind of server."""
    return connect(url)
