"""Who waits for work in this process, in whatever event loop: parked under the storage's lock, woken by any thread."""

from __future__ import annotations

import asyncio
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from threading import Lock


class _Waiter:
    __slots__ = ("future", "looks_at", "loop", "queues", "thread", "woken_for")

    def __init__(self, queues: Collection[str] | None, looks_at: float) -> None:
        self.queues = queues
        self.looks_at = looks_at
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.thread = get_ident()
        self.woken_for: str | None = None

    def asks_for(self, queue: str) -> bool:
        return self.queues is None or queue in self.queues

    def wake(self, queue: str | None) -> bool:
        """Tell it about the queue; None: to look again. False: its loop closed while it waited."""
        self.woken_for = queue
        try:
            if self.thread == get_ident():
                _answer(self.future)
            else:
                self.loop.call_soon_threadsafe(_answer, self.future)
        except RuntimeError:
            return False
        return True


class Waiters:
    """Looking for work and parking happen under one hold of the lock, so that no wake-up falls between the two."""

    def __init__(self) -> None:
        self.parked: dict[_Waiter, None] = {}
        """Who waits now. Empty nearly always, so that whoever brings work asks it first and saves the call."""

    def park(self, queues: Collection[str] | None, looks_at: float = inf) -> _Waiter:
        """Enter the caller's task; to be followed by `sleep`, with the lock let go. Call it under the lock.

        It says at which instant it will look again by itself.
        """
        waiter = _Waiter(queues, looks_at)
        self.parked[waiter] = None
        return waiter

    async def sleep(self, waiter: _Waiter, timeout: float, lock: Lock) -> bool:
        """Return True when woken, False after `timeout` seconds. A cancelled waiter passes its wake-up on."""
        timer = waiter.loop.call_later(timeout, _answer, waiter.future)
        try:
            await waiter.future
        except asyncio.CancelledError:
            with lock:
                self.parked.pop(waiter, None)
                if waiter.woken_for is not None:
                    self.wake(waiter.woken_for, 1)
            raise
        finally:
            timer.cancel()
        with lock:
            self.parked.pop(waiter, None)
        return waiter.woken_for is not None  # not the timer's word: it may have been woken just after

    def wake(self, queue: str, many: int) -> None:
        """Wake up to `many` waiters that asked for the queue, the longest-waiting first. Call it under the lock."""
        while many and (waiter := next((w for w in self.parked if w.asks_for(queue)), None)):
            del self.parked[waiter]
            many -= waiter.wake(queue)

    def look_again(self, queue: str, at: float) -> None:
        """Let all who asked for the queue, and would look later than at that instant, look now. Call it under the lock."""
        for waiter in [waiter for waiter in self.parked if waiter.looks_at > at and waiter.asks_for(queue)]:
            del self.parked[waiter]
            waiter.wake(None)

    def wake_all(self) -> None:
        """Wake everybody. Call it under the lock."""
        for waiter in self.parked:
            waiter.wake("")
        self.parked.clear()


def _answer(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
