"""What the tests of the Redis storage start from: real servers, and storages that nobody else uses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage
from qml_nb.storage.storage import Storage

Connect = Callable[..., Awaitable[Storage]]


@pytest.fixture(scope="session")
def servers() -> Iterator[LocalServers]:
    """The servers of all these tests."""
    with LocalServers() as servers:
        yield servers


@pytest.fixture(scope="session")
def url(servers: LocalServers) -> str:
    """The address of a server that nobody freezes or stops."""
    return servers.redis()


@pytest.fixture(scope="session")
def cluster_url(servers: LocalServers) -> str:
    """The address of a cluster of three, likewise."""
    return servers.redis_cluster(3)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """The way to open a storage of the test's own, which closes after it: `await connect(url, **options)`."""
    async with AsyncExitStack() as opened:
        prefix = f"test-{uuid4().hex}"

        async def connect(url: str, **options: Any) -> Storage:
            storage = await open_storage(url, **{"key_prefix": prefix, **options})
            opened.push_async_callback(storage.close)
            return storage

        yield connect


@pytest.fixture
async def storage(connect: Connect, url: str) -> Storage:
    """An empty storage of the test's own."""
    return await connect(url)
