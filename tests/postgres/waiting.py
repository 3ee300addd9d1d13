"""Waiting for what transactions and notifications do. Every bound only ends a test that hangs."""

import asyncio
from typing import Any

from qml_nb.storage.storage import Storage


async def waits(connection: Any) -> None:
    """Return once some statement waits for another transaction."""
    async with asyncio.timeout(10):
        while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
            await asyncio.sleep(0.01)


async def known(storage: Storage) -> bool:
    """Whether notifications arrive, once that is known."""
    async with asyncio.timeout(10):
        while storage.backend.hears is None:
            await asyncio.sleep(0.01)
    return storage.backend.hears
