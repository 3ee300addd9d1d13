"""`Local`: the throw-away servers that a room offers with one click, each started when it is first chosen."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from qml_nb.errors import InvalidValue
from qml_nb.servers import LocalServers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Kind:
    """A kind of server to offer."""

    name: str
    remedy: str
    """What errors advise in code, where the mouse has this choice."""
    start: Callable[[LocalServers], str]
    keeps_jobs: bool
    """Whether its jobs are there again when it was killed and starts again."""


def _postgres(servers: LocalServers) -> str:
    # A commit goes to the system, though not to the disk: else the server's death would take the last second's with it.
    return servers.postgres(options={"synchronous_commit": "on"})


KINDS: Final[Mapping[str, Kind]] = {
    f"local {kind.name}": kind
    for kind in (
        Kind("Redis", "start a server with LocalServers().redis()", LocalServers.redis, keeps_jobs=False),
        Kind("PostgreSQL", "start a server with LocalServers().postgres()", _postgres, keeps_jobs=True),
    )
}
"""What the menu calls them."""


class Local:
    """Starts the server of a choice, again if it has ended, and keeps it until `close`. Any thread may call."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._servers: LocalServers | None = None
        self._closed = False
        self._lock = Lock()
        self._starting = {choice: Lock() for choice in KINDS}

    def start(self, choice: str) -> str:
        """Start the server, unless it runs, and return its URL."""
        servers = self._made()
        with self._starting[choice]:
            if choice not in self._urls:
                self._urls[choice] = KINDS[choice].start(servers)
            elif self.has_ended(choice):
                servers.server(self._urls[choice]).restart()
            return self._urls[choice]

    def _made(self) -> LocalServers:
        with self._lock:
            if self._closed:
                raise InvalidValue("control room", "to be open", "a closed one", "make a new ControlRoom()")
            self._servers = self._servers or LocalServers()
            return self._servers

    def has_ended(self, choice: str) -> bool:
        """Whether the server of a choice was started, and is gone."""
        servers, url = self._servers, self._urls.get(choice)
        return bool(servers and url and not servers.server(url).is_running)

    def choice_of(self, url: str) -> str | None:
        """Return the choice whose server has this URL."""
        return next((choice for choice, own in dict(self._urls).items() if own == url), None)

    def close(self) -> None:
        """End all of them, for good."""
        with self._lock:
            self._closed, servers = True, self._servers
        if servers is not None:
            servers.stop()  # which also ends a start that hangs
            for starting in self._starting.values():
                with starting:
                    servers.stop()  # with what that start has left meanwhile


def ended(choice: str) -> str:
    """Return what to say of a server that has ended, and what to do.

    >>> ended("local Redis")
    'The local Redis has ended, and its jobs with it. Choose “local Redis” again to start a new one.'
    """
    if KINDS[choice].keeps_jobs:
        return f"The {choice} has ended. Choose “{choice}” again to start it again, with its jobs."
    return f"The {choice} has ended, and its jobs with it. Choose “{choice}” again to start a new one."


def starting(choice: str) -> str:
    """Return what to say while a server starts.

    >>> starting("local PostgreSQL")
    'starting PostgreSQL…'
    """
    return f"starting {KINDS[choice].name}…"


def by_mouse(advice: str) -> str:
    """Return an error's advice for code as one for who has a mouse.

    >>> by_mouse("check the URL, or start a server with LocalServers().postgres()")
    'check the URL, or choose “local PostgreSQL”'
    """
    for choice, kind in KINDS.items():
        advice = advice.replace(kind.remedy, f"choose “{choice}”")
    return advice
