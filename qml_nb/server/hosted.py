"""A server that runs away from its pool: what is wished of it, and what it tells. Both are plain data."""

from __future__ import annotations

import asyncio
from collections import Counter
from logging import getLogger
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import replace

from qml_nb.errors import StorageUnavailable
from qml_nb.retry import kinds_of
from qml_nb.server.copying import loads
from qml_nb.server.error_text import describe
from qml_nb.server.server import BackgroundJobServer
from qml_nb.server.telemetry import Snapshot, TaskCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from qml_nb.server.plan import Plan
    from qml_nb.server.registry import WorkerRegistry

log = getLogger("qml_nb.server")

AWAY_PAUSE: Final = 0.5
"""Seconds until a server that found its storage away tries again."""


class Wish(Struct, frozen=True):
    """How the server is to be from now on."""

    worker_count: int
    stop: bool = False
    plan: bytes | None = None
    """A newer plan, whose tasks it is to run; None if nothing changed."""
    at_once: bool = False
    """Whether what runs gets no more time when it stops."""


class Started(Struct, tag=True, frozen=True):
    """The server claims jobs."""


class Waiting(Struct, tag=True, frozen=True):
    """It can't start yet: its storage is away."""

    text: str


class Failed(Struct, tag=True, frozen=True):
    """It can't start, and won't: this is the end of it."""

    text: str
    kinds: frozenset[str]


class Told(Struct, tag=True, frozen=True):
    """It told this."""

    snapshot: Snapshot


class Stopped(Struct, tag=True, frozen=True):
    """It has stopped in order: this is the end of it."""


News: TypeAlias = Started | Waiting | Failed | Told | Stopped
encode: Final = Encoder().encode
decode_wish: Final = Decoder(Wish).decode
decode_news: Final[Callable[[bytes], News]] = Decoder(News).decode


class Outbox:
    """News until somebody takes them, in any thread. Snapshots that nobody takes become one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._news: list[News] = []

    def put(self, news: News) -> None:
        """Add the newest."""
        with self._lock:
            last = self._news[-1] if self._news else None
            if isinstance(news, Told) and isinstance(last, Told):
                self._news[-1] = Told(_together(last.snapshot, news.snapshot))
            else:
                self._news.append(news)

    def take(self) -> list[bytes]:
        """Return all, encoded, the oldest first."""
        with self._lock:
            taken, self._news = self._news, []
        return [encode(news) for news in taken]


def _together(before: Snapshot, after: Snapshot) -> Snapshot:
    phases = {
        phase: dict(Counter(before.phases.get(phase, {})) + Counter(counts)) for phase, counts in after.phases.items()
    }
    tasks: dict[tuple[str, str], TaskCount] = {}
    for task in (*before.tasks, *after.tasks):
        tasks.setdefault((task.queue, task.method), TaskCount(task.queue, task.method)).add(task)
    return replace(after, phases=phases, tasks=tuple(tasks.values()))


class Hosted:
    """One server in an event loop away from its pool. `tell` hears of it, in that loop."""

    def __init__(self, wish: Wish, tell: Callable[[News], None]) -> None:
        self._wish, self._tell = wish, tell
        self._server: BackgroundJobServer | None = None
        self._registry: WorkerRegistry | None = None
        self._ending = asyncio.Event()
        self._starting: asyncio.Task[Any] | None = None

    async def run(self, plan: bytes) -> None:
        """Run the server of a plan until it is to stop; a cancellation stops it at once. Tells all errors, raises none."""
        self._starting = asyncio.current_task()
        try:
            server = self._make(loads(plan))
            await self._start(server)
        except asyncio.CancelledError:
            self._tell(Stopped())
        except Exception as error:
            self._tell(Failed(describe(error), kinds_of(error)))
        else:
            await self._run(server)
            self._tell(Stopped())

    def obey(self, wish: Wish) -> None:
        """Be as is wished."""
        self._wish = wish
        if wish.plan is not None and self._registry is not None:
            _update(self._registry, wish.plan)
        if self._server is not None:
            self._server.resize(wish.worker_count)
            if wish.at_once:
                self._hurrying = asyncio.ensure_future(self._server.stop(at_once=True))
        if wish.stop:
            self._ending.set()
            if self._starting is not None:
                self._starting.cancel()

    def _make(self, plan: Plan) -> BackgroundJobServer:
        if plan.initializer is not None:
            plan.initializer()
        self._registry = plan.registry
        server = BackgroundJobServer(plan.storage(), plan.registry, plan.config, retry=plan.retry)
        server.listeners.append(lambda snapshot: self._tell(Told(snapshot)))
        return server

    async def _start(self, server: BackgroundJobServer) -> None:
        while True:
            try:
                await server.start()
                break
            except StorageUnavailable as error:
                self._tell(Waiting(str(error)))
            await asyncio.sleep(AWAY_PAUSE)
        self._server, self._starting = server, None
        server.resize(self._wish.worker_count)
        self._tell(Started())

    async def _run(self, server: BackgroundJobServer) -> None:
        try:
            await self._ending.wait()
            await server.stop()
        except asyncio.CancelledError:
            await server.stop(at_once=True)
        finally:
            await server.storage.close()


def _update(registry: WorkerRegistry, plan: bytes) -> None:
    """Put in what the registry of a newer plan holds; the server that has the old one sees it from its next job on."""
    try:
        new = loads(plan).registry
    except Exception:
        log.exception("the tasks of %r stay as they were: newer ones could not be read", registry)
        return
    for name, values in vars(new).items():  # in place: the server's slots hold on to these
        old = getattr(registry, name, None)
        if isinstance(old, dict):
            old.clear()
            old.update(values)
        elif isinstance(old, list):
            old[:] = values
