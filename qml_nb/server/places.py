"""Where the servers of a pool run: in its own thread, in processes, or on a Dask cluster."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qml_nb.errors import InvalidValue
from qml_nb.server.child import Setup
from qml_nb.server.elsewhere import Elsewhere, Plans
from qml_nb.server.hosted import encode
from qml_nb.server.lifeline import Child, check_can_spawn, how, module_path
from qml_nb.server.plan import Plan, plan_of
from qml_nb.server.server import BackgroundJobServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from qml_nb.config import ServerConfig
    from qml_nb.retry import RetryPolicy
    from qml_nb.server.posts import Place, Post
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.storage.storage import Storage

_LAST_WORDS = 0.5
_EXIT = 2.0


def place_of(
    where: str,
    client: Any,
    storage: Storage,
    registry: WorkerRegistry,
    config: ServerConfig,
    retry: RetryPolicy | None,
    initializer: Callable[[], object] | None,
) -> Place:
    """Return the place that a pool names.

    Raises:
        InvalidValue: there is no such place, or not for this storage or on this system.
    """
    if where not in ("thread", "process", "dask"):
        raise InvalidValue("where", "to be 'thread', 'process' or 'dask'", where)
    if client is not None and where != "dask":
        raise InvalidValue("client", "to be given with where='dask' only", client, f"leave it out with {where!r}")
    if initializer is not None and where == "thread":
        raise InvalidValue("initializer", "to be given with other processes only", initializer, "call it before")
    if where == "thread":
        return ThreadPlace(storage, registry, config, retry)
    plan = plan_of(storage, registry, config, retry, initializer, where)
    if where == "process":
        return ProcessPlace(plan)
    try:
        from qml_nb.server.dask_place import DaskPlace
    except ImportError as error:
        raise InvalidValue("where", "to have the package distributed", where, "pip install 'qml-nb[dask]'") from error
    return DaskPlace(plan, client)


class ThreadPlace:
    """The thread of the pool."""

    def __init__(
        self, storage: Storage, registry: WorkerRegistry, config: ServerConfig, retry: RetryPolicy | None
    ) -> None:
        self._storage, self._registry, self._config, self._retry = storage, registry, config, retry

    def prepare(self) -> None:
        """See `Place`."""

    def server(self, worker_count: int) -> ThreadServer:
        """See `Place`."""
        server = BackgroundJobServer(self._storage, self._registry, self._config, retry=self._retry)
        return ThreadServer(server, worker_count)

    async def close(self) -> None:
        """See `Place`."""


class ThreadServer:
    """A server in the loop of the pool."""

    def __init__(self, server: BackgroundJobServer, worker_count: int) -> None:
        self._server, self._worker_count = server, worker_count
        self._starting: asyncio.Task[Any] | None = None
        self._ending = asyncio.Event()

    async def run(self, post: Post) -> None:
        """See `Server`."""
        self._server.listeners.append(post.tell)
        self._starting = asyncio.current_task()
        await self._server.start()
        self._starting = None
        self._server.resize(self._worker_count)
        post.started()
        try:
            await self._ending.wait()
        finally:
            await self._server.stop()

    def stop(self, *, at_once: bool) -> None:
        """See `Server`."""
        self._ending.set()
        if self._starting is not None:
            self._starting.cancel()
        elif at_once:
            self._hurrying = asyncio.ensure_future(self._server.stop(at_once=True))

    def resize(self, worker_count: int) -> None:
        """See `Server`."""
        self._worker_count = worker_count
        self._server.resize(worker_count)


class ProcessPlace:
    """Processes, each the child of this one."""

    def __init__(self, plan: Plan) -> None:
        check_can_spawn("where", "process")
        self._plans = Plans(plan)

    def prepare(self) -> None:
        """See `Place`."""
        self._plans.pack()

    def server(self, worker_count: int) -> ProcessServer:
        """See `Place`."""
        return ProcessServer(self._plans, worker_count)

    async def close(self) -> None:
        """See `Place`."""


class ProcessServer(Elsewhere):
    """A server in a process of its own."""

    async def run(self, post: Post) -> None:
        """See `Server`."""
        child, patience = self._child(post), 0.0
        try:
            await self._talk(child, post)
            patience = _EXIT
        finally:
            status = await child.end(patience)
            child.pipe.close()
        if not (self.is_stopping and self.has_stopped):
            raise self.died(f"{how(status)} (process {child.pid})", post)

    def _child(self, post: Post) -> Child:
        try:
            return Child("qml_nb.server.child")
        except OSError as error:  # too many processes, or files
            raise self.died(f"could not start: {error}", post) from error

    async def _talk(self, child: Child, post: Post) -> None:
        """Say what is wished and hear what is told, until the process has ended, or all is said."""
        hearing = asyncio.create_task(self._hear(child, post))
        try:
            with suppress(ConnectionError):
                await self._say(child, hearing)
            await asyncio.wait([hearing], timeout=_LAST_WORDS)
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
        if not hearing.cancelled():
            hearing.result()

    async def _say(self, child: Child, hearing: asyncio.Task[None]) -> None:
        said = self.wish()
        await child.pipe.write(encode(Setup(module_path(), self.plan, said)))
        while child.status is None and not hearing.done():
            await self.change()
            if (wish := self.wish()) != said:
                said = wish
                await child.pipe.write(encode(wish))
            if self.is_late:
                child.kill()

    async def _hear(self, child: Child, post: Post) -> None:
        try:
            while (news := await child.pipe.read()) is not None:
                self.hear(news, post)
        finally:
            self._changed.set()
