"""How a storage on a server reaches it: by connections of its own from each event loop, and again when one is lost."""

from __future__ import annotations

import asyncio
import os
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from qml_nb.errors import StorageClosed, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between two tries of what may be sent again
_LOOK = 0.05  # seconds between two looks whether a loop still runs

_all: WeakSet[Links[Any]] = WeakSet()
_of_parents: list[Any] = []
"""What a forked child has of its parent's connections. Nothing of it may ever be collected: a connection that is would take
its socket out of the parent's event loop, since the two share what watches it."""


class ConnectionLost(StorageUnavailable):
    """The connection broke: what was sent last may have been done, or not. It is worth another try at once."""


class NotConnected(ConnectionLost):
    """There was no connection: nothing was sent."""


class Link(Protocol):
    """The connections of one event loop."""

    async def open(self) -> None:
        """Connect. Called once, in the loop."""

    async def close(self) -> None:
        """Let go of every connection, also of one that is being made."""


L = TypeVar("L", bound=Link)


class Links(Generic[L]):
    """The links of a storage: one for each event loop, made by its first call, and shared by all who come meanwhile.

    A caller that is cancelled while it opens ends nobody's connection: half of one is of no use, the whole one is to the next.
    """

    def __init__(self, make: Callable[[], L], patience: float) -> None:
        self.closed = False
        self._make, self._patience = make, patience
        self._openings: dict[asyncio.AbstractEventLoop, asyncio.Task[L]] = {}
        self._lock = Lock()
        _all.add(self)

    async def get(self) -> L:
        """Return this event loop's link, open.

        Raises:
            StorageClosed: all are closed, for good.
            StorageUnavailable: it can't be opened; the next call tries again.
        """
        if self.closed:
            raise StorageClosed
        loop = asyncio.get_running_loop()
        opening = self._openings.get(loop)
        if opening is None or _has_failed(opening):
            opening = loop.create_task(self._open(loop))
            opening.add_done_callback(_look_at)
            with self._lock:
                self._openings = {known: task for known, task in self._openings.items() if not known.is_closed()}
                self._openings[loop] = opening
        if opening.done():
            return opening.result()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if self.closed and not cancellations():  # `close` ended it, and nobody this caller
                raise StorageClosed from None
            raise

    def begin_anew(self) -> None:
        """Leave to the parent what a forked child has of it: its connections, and its loops without the threads that ran them."""
        _of_parents.append(self._openings)
        self._openings, self._lock = {}, Lock()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> L:
        link = self._make()
        try:
            await link.open()
        except BaseException:
            with self._lock:
                self._openings.pop(loop, None)
            await link.close()
            raise
        return link

    @property
    def opened(self) -> list[L]:
        """All that are open."""
        with self._lock:
            tasks = list(self._openings.values())
        return [task.result() for task in tasks if task.done() and not _has_failed(task)]

    async def close(self) -> None:
        """Close all, each in its event loop. One whose loop has ended, or ends meanwhile, has gone with it."""
        self.closed = True
        with self._lock:
            openings, self._openings = self._openings, {}
        for loop, opening in openings.items():
            if loop is asyncio.get_running_loop():
                await _end(opening)
            elif loop.is_running():
                ending = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_end(opening), loop))
                while loop.is_running() and not ending.done():
                    await asyncio.wait([ending], timeout=_LOOK)
                ending.cancel()

    async def persist(self, attempt: Callable[[bool], Awaitable[T]]) -> T:
        """Try, and when the connection is lost for a while again; an attempt is told whether an earlier one may have been done.

        For what bears repetition, as verbs with client-made ids and fencing do.
        """
        lost_at, pause, cancelled, was_sent = None, _FIRST_PAUSE, cancellations(), False
        while True:
            try:
                return await attempt(was_sent)
            except ConnectionLost as error:
                if cancellations() > cancelled:  # the connection was lost by that
                    raise asyncio.CancelledError from error
                lost_at, was_sent = lost_at or monotonic(), was_sent or not isinstance(error, NotConnected)
                if self.closed or monotonic() + pause > lost_at + self._patience:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _after_fork() -> None:
    for links in list(_all):
        links.begin_anew()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


def cancellations() -> int:
    """Return how often the current task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def _end(opening: asyncio.Task[L]) -> None:
    if not opening.done():
        opening.cancel()  # which closes what is there of it
        await asyncio.wait([opening])
    elif not _has_failed(opening):
        await opening.result().close()


def _has_failed(opening: asyncio.Task[L]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


def _look_at(opening: asyncio.Task[L]) -> None:
    """Have nobody told of an exception that no caller waits for any more."""
    if not opening.cancelled():
        opening.exception()
