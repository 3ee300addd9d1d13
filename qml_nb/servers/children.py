"""`ChildProcesses`: processes that end with the process that started them, however that ends."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from subprocess import DEVNULL, STDOUT, Popen
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qml_nb.errors import LocalServersStopped
from qml_nb.servers.reaper import Reaper, birth, children_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_PATIENCE, _POLL = 5.0, 0.002

_all: WeakSet[ChildProcesses] = WeakSet()


class ChildProcesses:
    """Processes that end by `stop`, and by the reaper if their owner is killed before; so does `directory`."""

    def __init__(self, directory: Path) -> None:
        self.stopped = False
        self._owner = os.getpid()
        self._lock = Lock()
        self._running: list[Popen[bytes]] = []
        self._reaper = Reaper(directory)
        _all.add(self)

    def start(
        self, command: Sequence[str], directory: Path, log: Path, account: Mapping[str, Any] | None = None
    ) -> Popen[bytes]:
        """Start a process that appends its output to `log`, in a session of its own: Ctrl-C does not reach it.

        `account` is who it runs as, in Popen's words.
        """
        with self._lock:
            if self.stopped:
                raise LocalServersStopped
            with log.open("ab") as output:
                process = Popen(
                    command,
                    cwd=directory,
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=STDOUT,
                    start_new_session=True,
                    **(account or {}),
                )
            self._reaper.watch(process.pid)
            self._running = [each for each in self._running if each.poll() is None] + [process]
        return process

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Raise `LocalServersStopped` if all was stopped before, or for whatever fails since it was stopped meanwhile."""
        try:
            if self.stopped:
                raise LocalServersStopped
            yield
        except Exception as error:
            if self.stopped and not isinstance(error, LocalServersStopped):
                raise LocalServersStopped from error
            raise

    def stop(self) -> None:
        """Kill what runs and remove the directory; start nothing more. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self.stopped = True
        for process in self._running:
            kill(process)
        self._reaper.dismiss()

    def abandon(self) -> None:
        """In a forked child: leave everything to the parent, whose processes and files these are."""
        self.stopped = True
        self._lock = Lock()  # another thread of the parent may have held it
        self._reaper.abandon()
        for process in self._running:
            process.poll()  # not a child of this process: Popen takes it for ended, and sends it no signal


def kill(process: Popen[bytes]) -> None:
    """End a child that leads its process group, and what it forked, at once. Does nothing if it has ended."""
    if process.poll() is None:
        offspring = [(pid, birth(pid)) for pid in children_of(process.pid)]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pid, _ in offspring:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        end = monotonic() + _PATIENCE  # they hold on to shared memory and to ports until they are gone
        while any(born and birth(pid) == born for pid, born in offspring) and monotonic() < end:
            sleep(_POLL)


def _after_fork() -> None:
    for children in list(_all):
        children.abandon()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
