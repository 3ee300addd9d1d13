"""`WorkerPool`: servers that run beside the code that started them, so that a notebook's kernel stays free."""

from __future__ import annotations

import asyncio
import atexit
from concurrent.futures import Future
from contextlib import suppress
from logging import getLogger
from threading import Lock, Thread, current_thread
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakSet

from qml_nb.config import ServerConfig
from qml_nb.errors import InvalidValue, StorageUnavailable
from qml_nb.loops import new_loop
from qml_nb.server.server import BackgroundJobServer
from qml_nb.validate import check_int

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from qml_nb.retry import RetryPolicy
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.server.telemetry import Snapshot
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.server")

PoolState = Literal["stopped", "starting", "running", "stopping", "failed"]
_LAST_WAIT = 0.2
_AWAY_PAUSE = 0.5
_pools: WeakSet[WorkerPool] = WeakSet()


class WorkerPool:
    """One or more servers in a background thread with an event loop of its own.

    `start`, `stop` and `resize` return at once, from a cell, a widget callback or a script; `join` waits for the end.
    As a context manager it starts, and waits for a graceful stop. What still runs when the process ends is stopped
    with it: the thread is a daemon, and leases do the rest.

    Args:
        storage: where the jobs are; it may be shared with the caller. One that can't be reached is waited for.
        registry: the tasks, by method.
        config: of each server; or give options of `ServerConfig` by name. `worker_count` counts for each server.
        servers: how many servers.
        where: "thread"; this version has no other.
        retry: see `BackgroundJobServer`.
    """

    def __init__(
        self,
        storage: Storage,
        registry: WorkerRegistry,
        config: ServerConfig | None = None,
        *,
        servers: int = 1,
        where: str = "thread",
        retry: RetryPolicy | None = None,
        **options: Any,
    ) -> None:
        if where != "thread":
            raise InvalidValue("where", "to be 'thread'", where, "this version runs pools in a thread")
        self.storage = storage
        self.registry = registry
        self.config = ServerConfig.of(config, options)
        self.worker_count = self.config.worker_count
        self.servers = check_int("servers", servers, 1, 1_000)
        self.state: PoolState = "stopped"
        self.error: BaseException | None = None
        """What ended the pool, if `state` is "failed"; what it waits for, if that is "starting"."""
        self.listeners: list[Callable[[Snapshot], None]] = []
        """Called in the pool's thread with each server's snapshot, ten times a second; must return at once."""
        self._retry = retry
        self._lock = Lock()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: list[BackgroundJobServer] = []
        _pools.add(self)

    def start(self) -> Self:
        """Start the servers. Returns at once; does nothing while it runs."""
        with self._lock:
            if self.is_running:
                return self
            if self.state == "stopping":
                raise InvalidValue("pool", "to have stopped before it starts again", self.state, "join() it first")
            self.state, self.error = "starting", None
            ready: Future[None] = Future()
            self._thread = Thread(
                target=self._serve, args=(ready,), name=f"{self.config.server_name} pool", daemon=True
            )
            self._thread.start()
            ready.result()  # the loop exists: a matter of a millisecond, and `stop` can count on it
        return self

    def stop(self) -> Self:
        """Stop gracefully: see `BackgroundJobServer`. Returns at once; `join` waits."""
        with self._lock:
            if self.state in ("starting", "running"):
                self.state = "stopping"
                self._call(self._signal)
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the pool has stopped, `timeout` seconds at the most. Returns whether it has."""
        thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def resize(self, worker_count: int | None = None, *, servers: int | None = None) -> Self:
        """Change the slots of each server, the number of servers, or both. Returns at once; jobs that run run on."""
        with self._lock:
            if worker_count is not None:
                self.worker_count = check_int("worker_count", worker_count, 1, 100_000)
            if servers is not None:
                self.servers = check_int("servers", servers, 1, 1_000)
            self._call(self._adapt)
        return self

    @property
    def is_running(self) -> bool:
        """Whether it runs, or is about to."""
        return self.state in ("starting", "running")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop().join()

    def __repr__(self) -> str:
        return f"WorkerPool({self.config.server_name!r}, {self.servers} × {self.worker_count} slots, {self.state})"

    # -- in the pool's thread

    def _call(self, what: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _signal(self) -> None:
        self._stopping = True
        self._changed.set()

    def _serve(self, ready: Future[None]) -> None:
        loop = new_loop()
        state: PoolState = "failed"
        try:
            _run_to_end(loop, loop.create_task(self._main(ready)))
            state, self.error = "stopped", None
        except BaseException as error:
            self.error = error
            log.exception("%r ended by an error", self)
            if not ready.done():
                ready.set_exception(error)
        finally:
            with suppress(Exception):
                _close(loop)
            self.state = state  # the very last: from here on it may start again

    async def _main(self, ready: Future[None]) -> None:
        self._loop, self._changed, self._stopping = asyncio.get_running_loop(), asyncio.Event(), False
        ready.set_result(None)
        try:
            while not self._stopping:
                self._changed.clear()
                pause = await self._try_to_match()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
        finally:
            self.state = "stopping"
            await asyncio.gather(*(server.stop() for server in self._running), return_exceptions=True)
            self._running = []

    def _adapt(self) -> None:
        for server in self._running:
            server.resize(self.worker_count)
        self._changed.set()

    async def _try_to_match(self) -> float | None:
        """Do as `_match`; return the seconds until it is worth another try, None if it is done."""
        try:
            await self._match()
        except StorageUnavailable as error:
            self.error = error
            log.warning("%r can't start servers yet: %s", self, error)
            return _AWAY_PAUSE
        self.error = None
        if self.state == "starting":
            self.state = "running"
        return None

    async def _match(self) -> None:
        """Start or stop servers until there are as many as there should be."""
        while len(self._running) < self.servers:
            server = BackgroundJobServer(self.storage, self.registry, self.config, retry=self._retry)
            server.listeners.append(self._tell)
            await server.start()
            server.resize(self.worker_count)
            self._running.append(server)
        surplus, self._running = self._running[self.servers :], self._running[: self.servers]
        await asyncio.gather(*(server.stop() for server in surplus))

    def _tell(self, snapshot: Snapshot) -> None:
        for listener in list(self.listeners):
            listener(snapshot)


def _run_to_end(loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
    """Run the loop until `main` is done. A job may stop the loop, or raise SystemExit in a task of its own: it goes on."""
    while not main.done():
        try:
            loop.run_until_complete(main)
        except BaseException:
            if main.done() or loop.is_closed():
                raise
            log.warning("a job stopped the event loop of its pool, which goes on", exc_info=True)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop as `asyncio.run` would, but don't wait for ever for a job that swallows every cancellation."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=_LAST_WAIT))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@atexit.register
def _stop_all() -> None:
    """Give what runs a moment to hand its jobs back."""
    running = [pool for pool in list(_pools) if pool.is_running]
    for pool in running:
        pool.stop()
    for pool in running:
        pool.join(1.0)
