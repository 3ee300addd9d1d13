"""`LocalServer`: one server process, and what a fault test does to it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from subprocess import TimeoutExpired
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Protocol

from qml_nb.errors import LocalServerFailed, PortTaken
from qml_nb.servers.children import kill
from qml_nb.servers.reaper import children_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from subprocess import Popen

    from qml_nb.servers.children import ChildProcesses

_READY = b"ready to accept connections"  # Redis, Valkey and PostgreSQL alike, once they listen and have loaded
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0
_POLL = 0.002
_TAIL = 2_000


class Settings(Protocol):
    """What a kind of server is started with."""

    @property
    def kind(self) -> str:
        """The name of the kind."""
        ...

    @property
    def stop_signal(self) -> int:
        """The signal that shuts it down in order, without waiting for its clients."""
        ...

    @property
    def account(self) -> Mapping[str, Any]:
        """Who it runs as, in Popen's words; empty for who runs this process."""
        ...

    def command(self, directory: Path, port: int) -> Sequence[str]:
        """Make what it needs in its directory, and return its command."""
        ...

    def url(self, port: int) -> str:
        """Return its URL."""
        ...


class LocalServer:
    """A server that `LocalServers` started. All that is done to it has happened when the call returns.

    On a server that has ended, everything but `restart` does nothing.
    """

    def __init__(self, children: ChildProcesses, settings: Settings, *, port: int, directory: Path) -> None:
        self.url, self.port, self.directory = settings.url(port), port, directory
        self.log = directory / "server.log"
        self._children, self._settings = children, settings
        self._command = settings.command(directory, port)
        self._process = self._start()

    @property
    def name(self) -> str:
        """The kind of server, and its port."""
        return self.directory.name

    @property
    def pid(self) -> int:
        """The process; another one after each `restart`."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there, be it frozen."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Crash it: SIGKILL."""
        kill(self._process)

    def terminate(self) -> None:
        """Shut it down in order, and with SIGKILL if that takes longer than five seconds."""
        self._process.send_signal(self._settings.stop_signal)
        self.thaw()  # else a frozen one would not see it
        with suppress(TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT)
        self.kill()

    def freeze(self) -> None:
        """Halt it, connections left open: SIGSTOP. Clients see a server that does not answer."""
        self._signal_all(signal.SIGSTOP)
        if hasattr(os, "waitid"):  # not on macOS before Python 3.13
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen one go on: SIGCONT."""
        self._signal_all(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again with its port, directory and settings, after `terminate` if it runs; wait until it serves."""
        with self._children.in_use():
            self.terminate()
            self._process = self._start()

    def failed(self, what: str, kind: type[LocalServerFailed] = LocalServerFailed) -> LocalServerFailed:
        """Make the error that shows the end of its log."""
        return kind(self.name, what, self.log.read_text(errors="replace")[-_TAIL:].strip())

    def __repr__(self) -> str:
        return f"LocalServer({self.name}, {f'pid {self.pid}' if self.is_running else 'ended'})"

    def _signal_all(self, number: int) -> None:
        """Send a signal to the process, and to those that it started: PostgreSQL has one for each connection."""
        self._process.send_signal(number)
        for child in children_of(self.pid) if self.is_running else ():
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def _start(self) -> Popen[bytes]:
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self._children.start(self._command, self.directory, self.log, self._settings.account)
        try:
            self._wait_until_ready(process, before)
        except BaseException:
            kill(process)
            raise
        return process

    def _wait_until_ready(self, process: Popen[bytes], before: int) -> None:
        # The log, since no other process writes it: on a port that was taken, a PING would be answered by a stranger.
        deadline = monotonic() + _START_TIMEOUT
        while _READY not in (said := self.log.read_bytes()[before:].lower()):
            if process.poll() is not None:
                raise self.failed("did not start", PortTaken if b"already in use" in said else LocalServerFailed)
            if monotonic() > deadline:
                raise self.failed(f"was not ready after {_START_TIMEOUT:g} s")
            sleep(_POLL)
