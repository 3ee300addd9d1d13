"""What the tests of the helpers for tests start from: a storage on each backend, and a few tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from qml_nb import Storage, WorkerRegistry
from qml_nb.storage.sync import run_sync
from tests.contract.conftest import BACKENDS


@pytest.fixture(params=BACKENDS)
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """An empty storage of the test's own."""
    async with await BACKENDS[request.param]()() as storage:
        yield storage


@pytest.fixture(params=BACKENDS)
def sync_storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    """The same, for a test without an event loop."""
    storage = run_sync(BACKENDS[request.param]()())
    yield storage
    storage.sync.close()


@pytest.fixture
def registry() -> WorkerRegistry:
    """A registry for the tasks of the test."""
    return WorkerRegistry()


@pytest.fixture
def ran(registry: WorkerRegistry) -> list[object]:
    """What the tasks did: `note` notes its argument, and returns it; `fail` fails with it."""
    ran: list[object] = []

    @registry.task
    async def note(what: object) -> object:
        ran.append(what)
        return what

    @registry.task
    def fail(why: str) -> None:
        ran.append(why)
        raise LookupError(why)

    return ran
