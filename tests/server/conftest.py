"""What the tests of servers start from: a storage, a registry, and servers that are stopped after the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from qml_nb import BackgroundJobServer, MemoryStorage, Storage, WorkerRegistry
from tests.server.waiting import no_threads_left

Serve = Callable[..., Awaitable[BackgroundJobServer]]
"""Starts one more server on the test's storage; takes the options of `ServerConfig`, and `retry`."""


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    """An empty storage."""
    async with MemoryStorage() as storage:
        yield storage


@pytest.fixture
def registry() -> WorkerRegistry:
    """A registry without tasks."""
    return WorkerRegistry()


@pytest.fixture
async def serve(storage: Storage, registry: WorkerRegistry) -> AsyncIterator[Serve]:
    """Makes servers; after the test they stop, and leave neither tasks nor threads behind."""
    servers: list[BackgroundJobServer] = []

    async def start(**options: Any) -> BackgroundJobServer:
        server = BackgroundJobServer(storage, registry, **{"worker_count": 2, "shutdown_timeout": 0.05} | options)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()
    await storage.close()  # what listens to a database goes with it
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    assert not left
    await no_threads_left()
