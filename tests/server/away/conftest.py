"""What tests of pools start from whose servers run in other processes: a storage on Redis, and tasks of a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator

import cloudpickle
import pytest

from qml_nb import RedisStorage
from qml_nb.servers import LocalServers
from tests.server.away.pools import Make, pools, processes, redis_storage, wait
from tests.server.waiting import threads


@pytest.fixture(scope="module", autouse=True)
def as_in_a_notebook(request: pytest.FixtureRequest) -> Iterator[None]:
    """The functions of a test's module travel whole, as those of a notebook's cells do."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServers]:
    """Servers of databases."""
    with LocalServers() as servers:
        yield servers


@pytest.fixture(scope="module")
def url(local: LocalServers) -> str:
    """A Redis."""
    return local.redis()


@pytest.fixture
def storage(url: str) -> Iterator[RedisStorage]:
    """An empty storage."""
    with redis_storage(url) as storage:
        yield storage


@pytest.fixture
def make(storage, registry) -> Iterator[Make]:
    """Makes pools of processes, and stops them after the test."""
    registry.register("pid", os.getpid)
    with pools(storage, registry, where="process") as make:
        yield make


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every process and every thread of a pool ends with it."""
    yield
    wait(lambda: not processes())
    wait(lambda: not threads())
