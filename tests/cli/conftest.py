"""What the tests of commands start from: storages on real servers, and a directory with tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from qml_nb import Storage
from qml_nb.servers import LocalServers
from qml_nb.storage import storage_of
from tests.cli.workers import Address, Place
from tests.versions import PROGRAMS


@pytest.fixture(scope="session")
def servers() -> Iterator[LocalServers]:
    """The servers of all these tests."""
    with LocalServers() as servers:
        yield servers


@pytest.fixture(params=["redis", "postgres"])
def address(request: pytest.FixtureRequest, servers: LocalServers) -> Address:
    """An empty storage of the test's own on a server of each kind."""
    name = f"test_{uuid4().hex[:20]}"
    if request.param == "redis":
        return Address(servers.redis(), {"key_prefix": name})
    return Address(servers.postgres(programs=PROGRAMS), {"schema_name": name})


@pytest.fixture
async def storage(address: Address) -> AsyncIterator[Storage]:
    """The same storage, in this process."""
    async with storage_of(address.url, **address.options) as storage:
        yield storage


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where workers start, and their tasks are."""
    place = Place(tmp_path)
    yield place
    place.close()
