"""Threads for tasks that are plain functions. One that hangs is given up and replaced, so no slot is ever lost to it."""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from qml_nb.server.context import running

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]]

LET_END = 0.5
"""Seconds that a plain function which watches its cancellation gets to return by itself."""


class Interrupted(BaseException):
    """Raised inside a task that ran past its timeout and can't be cancelled; no `Exception`, so it is seldom swallowed."""


def interrupt(thread_id: int) -> None:
    """Raise `Interrupted` in another thread as soon as it runs Python code. A call into C has to return first."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(Interrupted))


class _Worker:
    """One daemon thread that takes calls one by one. After an interrupt it takes no other call."""

    def __init__(self, idle: list[_Worker], name: str) -> None:
        self._idle = idle
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._retired: asyncio.Future[None] | None = None
        self._working = False
        self._lock = Lock()
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Call | None) -> None:
        self._calls.put(call)

    def retire(self, retired: asyncio.Future[None]) -> None:
        """Take no other call; `retired` is done when the thread lets go of this one."""
        with self._lock:
            self._retired = retired
        self._calls.put(None)

    def interrupt(self) -> None:
        """Interrupt the call, if there still is one."""
        with self._lock:
            if self._working and self._thread.ident is not None:
                interrupt(self._thread.ident)

    def _serve(self) -> None:
        with suppress(Interrupted):  # one that was sent as the work ended strikes at the next call at the latest
            while self._retired is None and (call := self._calls.get()) is not None:
                self._answer(*call)
        if self._retired is not None:
            _call_soon(self._retired.get_loop(), _set_done, self._retired)

    def _answer(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], work: Callable[[], Any]) -> None:
        try:
            answer, error = self._do(work), None
        except BaseException as caught:  # whatever a task raises, SystemExit too, ends the task only
            answer, error = None, caught
        _call_soon(loop, self._deliver, future, answer, error)

    def _do(self, work: Callable[[], Any]) -> Any:
        """Do the work. An interrupt comes only in here: before or after, it would end the thread unheard."""
        try:
            with self._lock:
                self._working = self._retired is None
            return work() if self._working else None
        finally:
            with self._lock:
                self._working = False

    def _deliver(self, future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
        if future.cancelled():  # its caller is about to retire this thread
            return
        self._idle.append(self)
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(_Raised(error))


def _call_soon(loop: asyncio.AbstractEventLoop, what: Callable[..., None], *args: Any) -> None:
    with suppress(RuntimeError):  # the loop closed meanwhile
        loop.call_soon_threadsafe(what, *args)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Raised(Exception):
    """Carries any error through a future, which takes no StopIteration and treats SystemExit apart."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Threads:
    """As many threads as calls at a time, kept for the next calls."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[_Worker] = []

    async def run(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call the function in a thread, with this task's context variables, and return what it returns.

        If the caller is cancelled, the thread is interrupted and given up; the call ends when the thread has let go of
        the function, or with a second cancellation. A job that has asked whether it is cancelled gets `LET_END` first.
        """
        context = copy_context()
        worker = self._idle.pop() if self._idle else _Worker(self._idle, f"{self._name} thread")
        future: asyncio.Future[Any] = loop.create_future()
        worker.submit((loop, future, lambda: context.run(function, *args, **kwargs)))
        try:
            return await future
        except _Raised as carried:
            raise carried.error from None
        except asyncio.CancelledError:
            if future.cancelled():
                retired: asyncio.Future[None] = loop.create_future()
                worker.retire(retired)
                try:
                    if (run := running.get(None)) is not None and run.watch is not None:
                        await asyncio.wait([retired], timeout=LET_END)
                finally:
                    worker.interrupt()
                await retired
            raise

    def close(self) -> None:
        """Let idle threads end. Busy ones are daemons and end with their call, or with the process."""
        while self._idle:
            self._idle.pop().submit(None)
