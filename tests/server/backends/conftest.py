"""Runs what users see of servers on every backend, through real servers on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from qml_nb import Storage
from tests.contract.conftest import BACKENDS, Connect

Another = Callable[[], Awaitable[Storage]]
"""Opens one more connection to the test's store, as another process would; in memory it is the same storage."""


@pytest.fixture(params=BACKENDS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """The way to connect to the test's store: for tests that set options."""
    return BACKENDS[request.param]()


@pytest.fixture
async def storage(connect: Connect) -> AsyncIterator[Storage]:
    """An empty storage of the test's own, on each backend; `serve` and `registry` are those of all tests of servers."""
    async with await connect() as storage:
        yield storage


@pytest.fixture
async def another(connect: Connect) -> AsyncIterator[Another]:
    """Further connections, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one() -> Storage:
            return await stack.enter_async_context(await connect())

        yield open_one
