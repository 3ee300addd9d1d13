"""`Outlet`: where a load goes, and what is on its way there."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from qml_nb.storage.storage import Storage

MOST = 8
"""Batches on their way at a time: a few connections fewer than a storage has by default."""


class Outlet:
    """Sends batches to a storage without waiting for the answer to one before the next leaves.

    Else a storage that is 30 ms away would take a batch every 30 ms, and each job would leave late.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.pace = 0.0
        """Seconds from one batch to the next at which a place is free for each, going by the last answer."""
        self._flying: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def place(self, timeout: float) -> bool:
        """Wait until one more may leave; return whether it may. Raises what one that has left before ended with."""
        if len(self._flying) >= MOST:
            await asyncio.wait(self._flying, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        self._raise()
        return len(self._flying) < MOST

    def launch(self, send: Coroutine[None, None, None]) -> None:
        """Let one leave."""
        task = asyncio.create_task(self._fly(send))
        self._flying.add(task)
        task.add_done_callback(self._land)

    async def landed(self) -> None:
        """Wait for the answers to all that have left. Raises what one of them ended with."""
        if self._flying:
            await asyncio.wait(self._flying)
        self._raise()

    async def _fly(self, send: Coroutine[None, None, None]) -> None:
        left = monotonic()
        await send
        self.pace = (monotonic() - left) / (MOST - 2)  # less would leave no room for answers that take longer

    def _land(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        if not task.cancelled():
            self._error = self._error or task.exception()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
