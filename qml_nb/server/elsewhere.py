"""The pool's end of a server that runs in another process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from logging import getLogger
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from qml_nb.errors import RemoteError, ServerDied, StorageUnavailable
from qml_nb.server.hosted import Failed, Started, Stopped, Told, Waiting, Wish, decode_news
from qml_nb.server.plan import copied

if TYPE_CHECKING:
    from qml_nb.server.plan import Plan
    from qml_nb.server.posts import Post
    from qml_nb.server.telemetry import Snapshot

log = getLogger("qml_nb.server")

LOOK: Final = 0.2
"""Seconds between two looks at what has changed on either side."""
_LAST_SECONDS = 5.0


class Plans:
    """A plan in bytes, packed anew when its registry has changed, as by a notebook's cell that runs again."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.packed = b""
        self._known: dict[str, object] = {}

    def pack(self) -> None:
        """Look whether the registry has changed, and pack the plan if so.

        Raises:
            InvalidValue: see `Plan.packed`; `packed` stays what it was, until the registry has changed again.
        """
        known = vars(copied(self.plan.registry))
        if known != self._known:
            self._known = known
            self.packed = self.plan.packed()

    def newer(self, than: bytes) -> bytes | None:
        """Return the plan if it is another one."""
        try:
            self.pack()
        except Exception as error:
            log.warning("servers in other processes keep the tasks that they have: %s", error)
        return None if self.packed is than else self.packed


class Elsewhere:
    """What the pool wishes of one server elsewhere, and hears of it."""

    def __init__(self, plans: Plans, worker_count: int) -> None:
        self.plan = plans.packed
        """What the server was told last."""
        self.name = plans.plan.config.server_name
        self.has_started = self.has_stopped = False
        self._plans, self._worker_count = plans, worker_count
        self._changed = asyncio.Event()
        self._deadline: float | None = None
        self._at_once = False
        self._last: Snapshot | None = None

    def stop(self, *, at_once: bool) -> None:
        """See `Server.stop`."""
        if self._deadline is None or (at_once and not self._at_once):
            self._at_once = at_once
            grace = self._plans.plan.config.shutdown_timeout if self.has_started and not at_once else 0.0
            self._deadline = monotonic() + 2 * grace + _LAST_SECONDS  # for its jobs, and for its storage
        self._changed.set()

    def resize(self, worker_count: int) -> None:
        """See `Server.resize`."""
        self._worker_count = worker_count
        self._changed.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it is to stop."""
        return self._deadline is not None

    @property
    def is_late(self) -> bool:
        """Whether it should have stopped long ago."""
        return self._deadline is not None and monotonic() > self._deadline

    def wish(self) -> Wish:
        """Return how it is to be, with the tasks that it does not have yet."""
        newer = self._plans.newer(self.plan)
        self.plan = self.plan if newer is None else newer
        return Wish(self._worker_count, self.is_stopping, newer, self._at_once)

    async def change(self) -> None:
        """Return when something else is wished of it, or when it is time for a look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await self._changed.wait()
        self._changed.clear()

    def hear(self, news: bytes, post: Post) -> None:
        """Take what it tells.

        Raises:
            RemoteError: it can't start.
        """
        match decode_news(news):
            case Told(snapshot):
                self._last = snapshot
                post.tell(snapshot)
            case Started():
                self.has_started = True
                post.started()
            case Waiting(text):
                post.note(StorageUnavailable(text))
            case Failed(text, kinds):
                raise RemoteError(text, kinds)
            case Stopped():
                self.has_stopped = True

    def died(self, how: str, post: Post) -> ServerDied:
        """Make the error for a server that is no more, and tell that it has no slots any more."""
        last = self._last
        if last is not None and last.slots:
            cut_short = last.cut_short + last.busy if self.is_stopping else last.cut_short
            gone = replace(last, ts=time(), slots=0, busy=0, buffered=0, phases={}, tasks=(), cut_short=cut_short)
            post.tell(gone)
        return ServerDied(self.name, how)
