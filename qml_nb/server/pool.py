"""`WorkerPool`: servers that run beside the code that started them, so that a notebook's kernel stays free."""

from __future__ import annotations

import asyncio
import atexit
from concurrent.futures import Future
from logging import getLogger
from threading import Lock, Thread, current_thread
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakSet

from qml_nb.config import ServerConfig
from qml_nb.errors import InvalidValue, QMLError
from qml_nb.server.own_loop import run_in_own_loop
from qml_nb.server.places import place_of
from qml_nb.server.posts import Post
from qml_nb.storage import storage_of
from qml_nb.storage.storage import Storage
from qml_nb.validate import check_int

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from qml_nb.retry import RetryPolicy
    from qml_nb.server.posts import Server
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.server.telemetry import Snapshot

log = getLogger("qml_nb.server")

PoolState = Literal["stopped", "starting", "running", "stopping", "failed"]
_pools: WeakSet[WorkerPool] = WeakSet()


class WorkerPool:
    """One or more servers that run in the background: in a thread, in processes of their own, or on a Dask cluster.

    `start`, `stop` and `resize` return at once, from a cell, a widget callback or a script; `join` waits for the end.
    As a context manager it starts, and waits for a graceful stop. What still runs when this process ends is stopped
    with it, also when it is killed, and leases do the rest.

    In a thread, servers share this interpreter, and with it one processor. In processes they have one each, as many
    as there are. These get a copy of `registry` with all that its functions need, those of a notebook's cells and of
    `__main__` too, while functions of modules are imported there; tasks that are registered later, or anew, follow within
    a second, middleware and hooks too. A server whose process dies is replaced: after half a second, then one, then two,
    up to thirty. On a Dask cluster, each server is an actor; it stops when it has not heard of this process for ten
    seconds, and is started on another worker when its own is lost.

    Args:
        storage: where the jobs are, as a storage, which may be shared with the caller, or as the URL of one. One that
            can't be reached is waited for. In processes and on Dask, each server opens its own one like it, so it can't
            be in memory.
        registry: the tasks, by method.
        config: of each server; or give options of `ServerConfig` by name. `worker_count` counts for each server.
        servers: how many servers.
        where: "thread", "process" or "dask".
        client: with "dask", a `distributed.Client`, asynchronous or not, or the address of a scheduler.
        storage_options: options for a storage given as URL, by name.
        retry: see `BackgroundJobServer`.
        initializer: what each other process does first, as to set up its logs; it travels as tasks do.

    Raises:
        InvalidValue: this storage, this system or this installation does not allow for servers there.
    """

    def __init__(
        self,
        storage: Storage | str,
        registry: WorkerRegistry,
        config: ServerConfig | None = None,
        *,
        servers: int = 1,
        where: str = "thread",
        client: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        retry: RetryPolicy | None = None,
        initializer: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        self.storage = _storage(storage, storage_options)
        self.registry = registry
        self.config = ServerConfig.of(config, options)
        self.worker_count = self.config.worker_count
        self.servers = check_int("servers", servers, 1, 1_000)
        self.where = where
        self.state: PoolState = "stopped"
        self.error: BaseException | None = None
        """What ended the pool, if `state` is "failed"; else what one of its servers waits for, or what it died of."""
        self.listeners: list[Callable[[Snapshot], None]] = []
        """Called in the pool's thread with each server's snapshot, ten times a second; must return at once."""
        self._place = place_of(where, client, self.storage, registry, self.config, retry, initializer)
        self._lock = Lock()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._posts: list[Post] = []
        self._leaving: set[Post] = set()
        _pools.add(self)

    def start(self) -> Self:
        """Start the servers. Returns at once; does nothing while it runs.

        Raises:
            InvalidValue: it has not stopped yet, or a task can't be copied to another process: it is named.
        """
        with self._lock:
            if self.is_running:
                return self
            if self.state == "stopping":
                raise InvalidValue("pool", "to have stopped before it starts again", self.state, "join() it first")
            self._place.prepare()
            self.state, self.error = "starting", None
            ready: Future[None] = Future()
            self._thread = Thread(
                target=self._serve, args=(ready,), name=f"{self.config.server_name} pool", daemon=True
            )
            self._thread.start()
            ready.result()  # the loop exists: a matter of a millisecond, and `stop` can count on it
        return self

    def stop(self, *, at_once: bool = False) -> Self:
        """Stop gracefully: see `BackgroundJobServer`. Returns at once; `join` waits.

        With `at_once`, also while it stops, jobs that run get no more time.
        """
        with self._lock:
            if self.state in ("starting", "running"):
                self.state = "stopping"
                self._call(self._signal)
            if at_once:
                self._call(self._hurry)
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

    def _hurry(self) -> None:
        for post in (*self._posts, *self._leaving):
            post.stop(at_once=True)

    def _serve(self, ready: Future[None]) -> None:
        state: PoolState = "failed"
        try:
            run_in_own_loop(self._main(ready))
            state, self.error = "stopped", None
        except BaseException as error:
            self.error = error
            if isinstance(error, QMLError):
                log.error("%r ended by an error: %s", self, error)
            else:
                log.exception("%r ended by an error", self)
            if not ready.done():
                ready.set_exception(error)
        finally:
            self.state = state  # the very last: from here on it may start again

    async def _main(self, ready: Future[None]) -> None:
        self._loop, self._changed, self._stopping = asyncio.get_running_loop(), asyncio.Event(), False
        ready.set_result(None)
        try:
            while not self._stopping:
                self._changed.clear()
                self._match()
                self._look()
                await self._changed.wait()
        finally:
            self.state = "stopping"
            await _end([*self._posts, *self._leaving])
            self._posts, self._leaving = [], set()
            await self._place.close()

    def _adapt(self) -> None:
        for post in self._posts:
            post.resize(self.worker_count)
        self._changed.set()

    def _match(self) -> None:
        """Start or stop servers until there are as many as there should be."""
        while len(self._posts) < self.servers:
            self._posts.append(Post(self._server, self._changed.set, self._tell))
        surplus, self._posts = self._posts[self.servers :], self._posts[: self.servers]
        for post in surplus:
            post.stop()
        self._leaving = {post for post in (*self._leaving, *surplus) if not post.task.done()}

    def _look(self) -> None:
        """See how the servers are. Raises what keeps one from ever starting."""
        for post in self._posts:
            if post.task.done():
                post.task.result()
        self.error = next((post.error for post in self._posts if post.error is not None), None)
        if self.state == "starting" and all(post.has_started for post in self._posts):
            self.state = "running"

    def _server(self) -> Server:
        return self._place.server(self.worker_count)

    def _tell(self, snapshot: Snapshot) -> None:
        for listener in list(self.listeners):
            listener(snapshot)


def _storage(storage: Storage | str, options: Mapping[str, Any] | None) -> Storage:
    if not isinstance(storage, Storage):
        return storage_of(storage, **(options or {}))
    if options:
        raise InvalidValue("storage_options", "to come with a URL", dict(options), "this storage has its own")
    return storage


async def _end(posts: list[Post]) -> None:
    for post in posts:
        post.stop()
    if posts:
        await asyncio.wait([post.task for post in posts])


@atexit.register
def _stop_all() -> None:
    """Give what runs a moment to hand its jobs back."""
    running = [pool for pool in list(_pools) if pool.is_running]
    for pool in running:
        pool.stop()
    for pool in running:
        pool.join(1.0)
