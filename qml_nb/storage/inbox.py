"""One subscriber's messages, in its own event loop: an asynchronous iterator that never grows without bound."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGES_KEPT = 1_000
"""How many messages wait for a reader that falls behind; then the oldest go."""


class Inbox:
    """What a subscription returns: read it with `async for`, or have it tell with `hear`; leave it with `aclose`."""

    def __init__(self, leave: Callable[[Inbox], None]) -> None:
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(MESSAGES_KEPT)
        self._over = False
        self._told: Callable[[bytes | None], None] | None = None

    def hear(self, told: Callable[[bytes | None], None]) -> None:
        """Call this in the event loop with each message, in place of a reader; last with None, at the end."""
        while not self._messages.empty():
            told(self._messages.get_nowait())
        self._told = told

    def put(self, message: bytes | None) -> None:
        """Add a message, from any thread; None is the end."""
        with suppress(RuntimeError):  # its loop closed
            self._loop.call_soon_threadsafe(self._put, message)

    def _put(self, message: bytes | None) -> None:
        if self._told is not None:
            self._told(message)
            return
        if self._messages.full():
            self._messages.get_nowait()
        self._messages.put_nowait(message)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        message = None if self._over else await self._messages.get()
        if message is None:
            await self.aclose()
            raise StopAsyncIteration
        return message

    async def aclose(self) -> None:
        """Hear nothing more."""
        if not self._over:
            self._over = True
            self._leave(self)
            self._put(None)
