"""Connecting goes on when the caller is cancelled: half a connection is of no use to anybody, the whole one to the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from qml_nb.errors import StorageClosed
from qml_nb.storage.links import cancellations

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Outliving:
    """Tasks that outlive their callers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop alone would let go of them

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it for nobody in particular."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def wait_for(self, coroutine: Coroutine[Any, Any, T], unclaimed: Callable[[T], object]) -> T:
        """Return what it returns; if the caller is cancelled meanwhile, `unclaimed` gets it."""
        task = self.start(coroutine)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not cancellations():  # by `close`, and nobody this caller
                raise StorageClosed from None
            task.add_done_callback(lambda done: _is_well(done) and unclaimed(done.result()))
            raise

    async def close(self) -> None:
        """End them, but for the one that asks for it."""
        for task in (tasks := self._tasks - {asyncio.current_task()}):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        _is_well(task)  # looked at, so that nobody is told of an exception that no caller waits for


def _is_well(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None
