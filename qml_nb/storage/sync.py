"""The face of a storage for code without `await`: it runs on the toolkit's own loop thread."""

from __future__ import annotations

import asyncio
import atexit
import os
from contextlib import suppress
from functools import wraps
from inspect import iscoroutinefunction
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from qml_nb.loops import new_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from qml_nb.storage.storage import Storage

_ONLY_AWAITED = {"subscribe"}  # what it returns is read in the loop that it was made in
_LAST_SECONDS = 2.0


class _LoopThread:
    """A daemon thread that runs an event loop: one a process, and a new one after a fork."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a forked child has the loop, but not the thread that ran it."""
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or not self._loop.is_running():
                self._loop = new_loop()
                Thread(target=self._loop.run_forever, name="qml-nb loop", daemon=True).start()
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()
            return self._loop

    def shut_down(self) -> None:
        """Let whatever lives on the loop close its connections before the interpreter ends."""
        if self._loop is not None and self._loop.is_running():
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result(_LAST_SECONDS)


_thread = _LoopThread()
atexit.register(_thread.shut_down)
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_thread.forget)


async def _end_all() -> None:
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_asyncgens()


def loop_of_the_toolkit() -> asyncio.AbstractEventLoop:
    """Return the event loop of the toolkit's own daemon thread, started at the first call, also after a fork."""
    return _thread.loop()


def run_sync(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the toolkit's loop and return what it returns, whether or not a loop runs in this thread.

    Ctrl-C, and a stop of the cell, reach the caller at once and cancel the work.

    Raises:
        RuntimeError: called on the toolkit's loop itself, which would wait for itself for ever.
    """
    loop = loop_of_the_toolkit()
    if asyncio._get_running_loop() is loop:
        work.close()
        raise RuntimeError(
            "storage.sync was called in a coroutine that runs on the toolkit's own loop; await the method"
        )
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class SyncStorage:
    """`storage.sync`: every method of `Storage`, called without `await`.

    `storage.sync.enqueue(job)` works in a script, in a notebook cell and in a widget callback, whether or not an event
    loop is running there. A call costs a hop to another thread and back: to send many jobs, use `enqueue_many`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name not in dir(self):
            raise AttributeError(f"storage.sync has no {name!r}; it has {', '.join(dir(self))}", name=name, obj=self)

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            async def work() -> Any:
                return await method(*args, **kwargs)

            return run_sync(work())

        self.__dict__[name] = call
        return call

    def __dir__(self) -> list[str]:
        # By all its classes: one of them may have made a coroutine function quicker.
        names = {
            name
            for face in type(self._storage).__mro__
            for name, method in vars(face).items()
            if iscoroutinefunction(method)
        }
        return sorted(name for name in names if name[0] != "_" and name not in _ONLY_AWAITED)

    def __repr__(self) -> str:
        return f"{self._storage!r}.sync"
