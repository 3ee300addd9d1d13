"""Waiting for what transactions do. Every bound only ends a test that hangs."""

import asyncio
from typing import Any


async def waits(connection: Any) -> None:
    """Return once some statement waits for another transaction."""
    async with asyncio.timeout(10):
        while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
            await asyncio.sleep(0.01)
