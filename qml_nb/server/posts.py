"""The posts of a pool: at each stands one server, and another when that one has died."""

from __future__ import annotations

import asyncio
from logging import getLogger
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from qml_nb.errors import ServerDied, StorageUnavailable
from qml_nb.server.hosted import AWAY_PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from qml_nb.server.telemetry import Snapshot

log = getLogger("qml_nb.server")

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds until a server that died is replaced: the first, doubled each time up to the second."""
STEADY: Final = 10.0
"""Seconds that a server must live for the next death to count as the first."""
STILLBORN: Final = 3
"""How many servers may die in turn before they have started; then it is no accident."""


class Server(Protocol):
    """One server, wherever it runs, for one life."""

    async def run(self, post: Post) -> None:
        """Start it, tell the post when it has started, and return when it has stopped as it should.

        A cancellation ends it at once.

        Raises:
            StorageUnavailable: it has not started, for its storage is away.
            ServerDied: it ended by itself.
            Exception: it can't start, and another one couldn't either.
        """

    def stop(self, *, at_once: bool) -> None:
        """Let it stop gracefully, or as soon as it can if it has not started. Returns at once.

        With `at_once`, also when it is about to stop, what it runs gets no more time.
        """

    def resize(self, worker_count: int) -> None:
        """Change its slots."""


class Place(Protocol):
    """Where the servers of a pool run."""

    def prepare(self) -> None:
        """Do what can fail before anything starts, in the thread that starts the pool."""

    def server(self, worker_count: int) -> Server:
        """Make a server, to be run; in the loop of the pool."""

    async def close(self) -> None:
        """Let go of what the servers shared."""


class Post:
    """Keeps one server running, from its making until `stop`, in the loop of the pool."""

    def __init__(
        self, make: Callable[[], Server], on_change: Callable[[], None], tell: Callable[[Snapshot], None]
    ) -> None:
        self.tell = tell
        """Takes each snapshot of the server."""
        self.error: Exception | None = None
        """What it waits for, or what its last server died of, until the next one is steady."""
        self.has_started = False
        """Whether a server has started here, be it dead by now."""
        self._make, self._on_change = make, on_change
        self._server: Server | None = None
        self._server_has_started = False
        self._recovery: asyncio.TimerHandle | None = None
        self._is_ending = False
        self.task = asyncio.create_task(self._keep())
        """Ends with an error when no server can run here."""
        self.task.add_done_callback(lambda _: on_change())

    def stop(self, *, at_once: bool = False) -> None:
        """Let the server stop, see `Server.stop`; `task` ends with it."""
        self._is_ending = True
        if self._server is not None:
            self._server.stop(at_once=at_once)
        else:
            self.task.cancel()

    def resize(self, worker_count: int) -> None:
        """Change the slots of the server."""
        if self._server is not None:
            self._server.resize(worker_count)

    # -- what servers tell

    def started(self) -> None:
        """The server works."""
        self._server_has_started = self.has_started = True
        if isinstance(self.error, ServerDied):
            self._recovery = asyncio.get_running_loop().call_later(STEADY, self.note, None)
            self._on_change()
        else:
            self.note(None)

    def note(self, error: Exception | None) -> None:
        """Something keeps the server from working, or does no more."""
        if isinstance(error, StorageUnavailable) and str(error) != str(self.error):  # said once, not at every try
            log.warning("a server can't start yet, and tries on: %s", error)
        self.error = error
        self._on_change()

    # -- one server after the other

    async def _keep(self) -> None:
        pauses = Pauses(monotonic())
        while True:
            self._server = server = self._make()
            try:
                await server.run(self)
                return
            except (StorageUnavailable, ServerDied) as error:
                if self._is_ending:
                    return
                self.note(error)
                pause = pauses.after(error, started=self._server_has_started, now=monotonic())
                if isinstance(error, ServerDied):
                    log.warning("%s: %s; a new server starts in %.1f s", type(error).__name__, error, pause)
            finally:
                self._leave()
            await asyncio.sleep(pause)

    def _leave(self) -> None:
        self._server, self._server_has_started = None, False
        if self._recovery is not None:
            self._recovery.cancel()


class Pauses:
    """How long to wait before the next server, by how the ones before ended. The first one starts at `now`."""

    def __init__(self, now: float) -> None:
        self._next, self._stillborn, self._began = FIRST_PAUSE, 0, now

    def after(self, error: StorageUnavailable | ServerDied, *, started: bool, now: float) -> float:
        """Return the seconds to wait, after a server that did or did not start. Raises the error if none ever will."""
        if isinstance(error, StorageUnavailable):
            return AWAY_PAUSE
        self._stillborn = 0 if started else self._stillborn + 1
        if self._stillborn == STILLBORN:
            raise error
        if now - self._began >= STEADY:
            self._next = FIRST_PAUSE
        pause, self._next = self._next, min(2 * self._next, LONGEST_PAUSE)
        self._began = now + pause
        return pause
