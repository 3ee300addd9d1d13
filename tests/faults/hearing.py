"""Whether a subscription still hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from qml_nb import Storage, StorageUnavailable
from tests.faults.load import until


async def publish_until_heard(storage: Storage, messages: AsyncIterator[bytes], message: bytes) -> None:
    """Return once a subscriber gets this message; what was said before it may come first."""
    heard = asyncio.create_task(next_of(messages, message))

    async def published() -> bool:
        with suppress(StorageUnavailable):
            await storage.publish("news", message)
        return heard.done()

    await until(published)
    await heard


async def next_of(messages: AsyncIterator[bytes], message: bytes) -> None:
    async for heard in messages:
        if heard == message:
            return
