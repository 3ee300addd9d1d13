"""Hearing at once that a job was cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qml_nb.storage.backend import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from qml_nb.storage.inbox import Inbox
    from qml_nb.storage.storage import Storage


class Cancels:
    """What is told of cancelled jobs. Anybody may have sent it, so `check` asks the storage whether it is so.

    `check` is called with the ids of some jobs, and with None for all.
    """

    def __init__(self, storage: Storage, check: Callable[[Collection[str] | None], Awaitable[None]]) -> None:
        self._storage, self._check = storage, check
        self._inbox: Inbox | None = None
        self._ids: set[str] = set()
        self._heard = asyncio.Event()

    async def hear_of_cancelled_jobs(self) -> None:
        """Wait for news, and have it checked; the first time, have all that came before checked."""
        if self._inbox is None:
            self._inbox = await self._storage.subscribe(CANCELLED)
            self._inbox.hear(self._hear)
            await self._check(None)
        await self._heard.wait()
        self._heard.clear()
        ids, self._ids = self._ids, set()
        await self._check(ids)

    async def leave(self) -> None:
        """Hear nothing more."""
        if self._inbox is not None:
            await self._inbox.aclose()

    def _hear(self, message: bytes | None) -> None:
        if message is None:
            self._inbox = None
        else:
            self._ids.add(message.decode(errors="replace"))
        self._heard.set()
