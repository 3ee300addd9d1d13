"""Runs each test of servers on every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from qml_nb import BackgroundJobServer, WorkerRegistry
from qml_nb.storage.storage import Storage
from tests.contract.conftest import BACKENDS, Connect

Another = Callable[[], Awaitable[Storage]]
"""Opens one more connection to the test's store; on the memory backend it is the same storage."""
Serve = Callable[..., Awaitable[BackgroundJobServer]]
"""Starts one more server, on a storage of its own; takes the options of `ServerConfig`, and `retry`."""


@pytest.fixture(params=BACKENDS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """The way to connect to the test's store: for tests that set options."""
    return BACKENDS[request.param]()


@pytest.fixture
async def another(connect: Connect) -> AsyncIterator[Another]:
    """More connections, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one() -> Storage:
            return await stack.enter_async_context(await connect())

        yield open_one


@pytest.fixture
async def storage(another: Another) -> Storage:
    """An empty storage."""
    return await another()


@pytest.fixture
def registry() -> WorkerRegistry:
    """A registry without tasks."""
    return WorkerRegistry()


@pytest.fixture
async def serve(another: Another, registry: WorkerRegistry) -> AsyncIterator[Serve]:
    """Makes servers, which stop after the test."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> BackgroundJobServer:
            server = BackgroundJobServer(
                await another(), registry, **{"worker_count": 2, "shutdown_timeout": 0.05} | options
            )
            return await stack.enter_async_context(server)

        yield start
