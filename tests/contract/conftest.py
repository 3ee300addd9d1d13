"""Runs each contract test on every backend. A new backend is one entry in `BACKENDS`.

The tests know only the public face of a storage: whatever passes here can stand in for any other backend.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any
from uuid import uuid4

import pytest

from qml_nb.servers import LocalServers
from qml_nb.storage import MemoryStorage, PostgresStorage, RedisStorage
from qml_nb.storage.storage import Storage
from tests.versions import PROGRAMS, version

Connect = Callable[..., Awaitable[Storage]]
"""Opens one more connection to a store, as another process would have it. Options count at the first."""


def memory() -> Connect:
    """Make an empty store in memory, where every connection is the same object."""
    opened: list[Storage] = []

    async def connect(**options: Any) -> Storage:
        if not opened:
            opened.append(MemoryStorage(**options))
        return opened[0]

    return connect


@cache
def servers() -> LocalServers:
    """The servers of all tests of this run; they end with the process."""
    return LocalServers()


@cache
def redis_url() -> str:
    """The address of a Redis server."""
    return servers().redis()


@cache
def cluster_url() -> str:
    """The address of a cluster of three."""
    return servers().redis_cluster(3)


def on_redis(url: Callable[[], str]) -> Callable[[], Connect]:
    """Make an empty store on a server, where every connection is a storage of its own."""

    def new_store() -> Connect:
        prefix = f"test-{uuid4().hex}"
        first: dict[str, Any] = {}

        async def connect(**options: Any) -> Storage:
            first.update(options)
            return RedisStorage(url=url(), key_prefix=prefix, **first)

        return connect

    return new_store


@cache
def postgres_url() -> str:
    """The address of a PostgreSQL server."""
    return servers().postgres(programs=PROGRAMS)


def on_postgres() -> Connect:
    """Make an empty store in a schema of its own, where every connection is a storage of its own."""
    schema = f"test_{uuid4().hex[:20]}"
    first: dict[str, Any] = {}

    async def connect(**options: Any) -> Storage:
        first.update(options)
        return PostgresStorage(database_url=postgres_url(), schema_name=schema, max_connections=5, **first)

    return connect


BACKENDS: dict[str, Callable[[], Connect]] = {
    "memory": memory,
    "redis": on_redis(redis_url),
    "redis-cluster": on_redis(cluster_url),
    "postgres": on_postgres,
}
"""For each backend, what makes a new, empty store and returns the way to connect to it."""


@pytest.fixture(params=BACKENDS)
def new_store(request: pytest.FixtureRequest) -> Callable[[], Connect]:
    """What makes a store: for tests that need many."""
    return BACKENDS[request.param]


@pytest.fixture
def connect(new_store: Callable[[], Connect]) -> Connect:
    """The way to connect to the test's store: for tests that set options, or use several threads."""
    return new_store()


@pytest.fixture
async def storage(connect: Connect) -> AsyncIterator[Storage]:
    """An empty storage of the test's own."""
    async with await connect() as storage:
        yield storage


# -- how many cases ran on which backend


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note the backend where the terminal summary finds it again."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "new_store" in params:
        item.user_properties.append(("backend", params["new_store"]))


def cases(reporter: Any) -> Counter[str]:
    """How many cases ran on each backend, and how many were skipped."""
    counted: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in reporter.stats.get(outcome, ()):
            backend = dict(getattr(report, "user_properties", ())).get("backend")
            if backend:
                counted["skipped" if outcome == "skipped" else f"on {backend}"] += 1
    return counted


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a whole run in which one backend had fewer cases than another; a chosen few may be of one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None:  # a worker of a run in several processes has none
        counted = cases(reporter)
        del counted["skipped"]
        if len(set(counted.values())) > 1:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the number of cases by backend, so that a backend that did not run can't pass for green."""
    counted = cases(terminalreporter)
    if counted:
        skipped = counted.pop("skipped", 0)
        ran = ", ".join(f"{many} {where}" for where, many in sorted(counted.items())) or "none"
        terminalreporter.write_line(f"contract cases: {ran}, {skipped} skipped; PostgreSQL {version()}")
