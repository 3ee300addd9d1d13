"""Processes for tasks that use a processor. One whose call is given up is killed, so nothing runs on unseen."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from qml_nb.errors import ProcessDied, QMLError, RemoteError, Retry
from qml_nb.job import Report
from qml_nb.server.copying import packed, unfit
from qml_nb.server.lifeline import Child, check_can_spawn, module_path
from qml_nb.server.run import NS
from qml_nb.server.task_process import Call, Raised, Returned, Told, Unfit, decode_answer, encode
from qml_nb.validate import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qml_nb.server.progress import Reports
    from qml_nb.server.registry import Task
    from qml_nb.server.run import Run

_LOOK: Final = 0.2
_EXIT: Final = 1.0


class RemoteRetry(RemoteError, Retry):
    """A task asks, in another process, to be run again."""

    def __init__(self, text: str, kinds: Iterable[str], delay: float | None) -> None:
        QMLError.__init__(self, text, tuple(kinds), delay)
        self.text, self.kinds, self.delay = text, frozenset(kinds), delay


class UnfitResult(RemoteError):
    """A task returned, in another process, what is no JSON. It would do so again."""


class _Process:
    """One process, and the functions that it was sent."""

    def __init__(self) -> None:
        self._child = Child("qml_nb.server.task_process")
        self._functions: dict[str, Callable[..., Any]] = {}
        self._path: list[str] | None = module_path()

    def fits(self, task: Task) -> bool:
        """Whether it runs, and knows no older function of that name: it may have loaded other modules for that one."""
        return self._child.status is None and self._functions.get(task.name, task.run) is task.run

    async def call(self, run: Run, task: Task, function: bytes, tell: Callable[[bytes], None]) -> Any:
        """Run a job, and return what its task returns."""
        news = None if task.name in self._functions else function
        with suppress(ConnectionError):  # it has died; its status says how
            if self._path is not None:
                await self._child.pipe.write(encode(self._path))
                self._path = None
            await self._child.pipe.write(encode(Call(run.job, (run.deadline - perf_counter_ns()) / NS, news)))
            self._functions[task.name] = task.run
            while (message := await self._read()) is not None:
                match decode_answer(message):
                    case Told(progress_json):
                        tell(progress_json)
                    case Returned(result_json):
                        return decode_json(result_json)
                    case Unfit(text):
                        raise UnfitResult(text)
                    case Raised(text, kinds, retry, delay):
                        raise RemoteRetry(text, kinds, delay) if retry else RemoteError(text, kinds)
        raise ProcessDied(task.name, await self._child.end(_EXIT))

    async def _read(self) -> bytes | None:
        """Return the next message; None when the process has ended, though one that it forked may hold the pipe."""
        reading = asyncio.create_task(self._child.pipe.read())
        try:
            while not reading.done() and self._child.status is None:
                await asyncio.wait([reading], timeout=_LOOK)
            await asyncio.wait([reading], timeout=0)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        return None if reading.cancelled() else reading.result()

    async def end(self) -> None:
        """Kill it, and return when it has ended."""
        await self._child.end()
        self._child.pipe.close()


class Processes:
    """As many processes as calls at a time, up to `count` (None: one a processor), kept for the next calls."""

    def __init__(self, count: int | None, reports: Reports) -> None:
        self._free = asyncio.Semaphore(count or os.cpu_count() or 1)
        self._reports = reports
        self._idle: list[_Process] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._packed: dict[str, tuple[Callable[..., Any], bytes]] = {}

    async def run(self, run: Run, task: Task) -> Any:
        """Run a job in a process, as soon as one is free, and return what its task returns.

        If the caller is cancelled, the process is killed.

        Raises:
            RemoteError: what the task raises, in words.
            ProcessDied: it ended without an answer.
            InvalidValue: the task can't be copied to another process.
        """
        function = self._pack(task)
        job = run.job

        def tell(progress_json: bytes) -> None:
            self._reports.put(Report(job.id, job.claim_id, progress_json))

        async with self._free:
            process = self._take(task)
            try:
                result = await process.call(run, task, function, tell)
            except RemoteError:
                self._idle.append(process)
                raise
            except BaseException:
                await self._let_end(process)
                raise
            self._idle.append(process)
            return result

    def _pack(self, task: Task) -> bytes:
        """Return the function in bytes: one that can be imported as its name, any other whole."""
        known = self._packed.get(task.name)
        if known is not None and known[0] is task.run:
            return known[1]
        check_can_spawn("process", True)
        try:
            function = packed(task.run)
        except Exception as error:
            raise unfit(f"task {task.name!r}", task.run, error) from error
        self._packed[task.name] = task.run, function
        return function

    def _take(self, task: Task) -> _Process:
        while self._idle:
            process = self._idle.pop()
            if process.fits(task):
                return process
            self._let_end(process)
        return _Process()

    def _let_end(self, process: _Process) -> asyncio.Future[None]:
        """Let it end, whether or not somebody waits for that."""
        ending = asyncio.create_task(process.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return asyncio.shield(ending)

    async def close(self) -> None:
        """Kill what there is, and return when it has ended."""
        while self._idle:
            self._let_end(self._idle.pop())
        if self._ending:
            await asyncio.wait(self._ending)
