"""The reaper: a small process that outlives its owner, and then ends the processes and removes the files it left.

Run as a script it reads lines of pid and birth. The end of its input is the end of its owner, also by SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import IO

_ROUNDS, _PAUSE = 500, 0.01
_REMOVE = 0  # IPC_RMID, on Linux and macOS alike


def birth(pid: int) -> str:
    """When the process started, as its system writes it; empty once it has ended, be it still a zombie.

    A pid may come again for another process; together with the birth it does not.
    """
    return _birth_in_proc(pid) if Path("/proc/self/stat").exists() else _birth_by_ps(pid)


def _birth_in_proc(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything, blanks and ) too
    return "" if state in "ZX" else fields[18]


def _birth_by_ps(pid: int) -> str:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    found = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, text=True, check=False)
    state, _, started = found.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started and that have not ended: some servers give each a group of its own."""
    if Path("/proc/self/stat").exists():
        pairs = [(_parent_in_proc(entry), int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    else:
        listed = subprocess.run(["/bin/ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=False)
        pairs = [(int(parent), int(child)) for parent, child in map(str.split, listed.stdout.splitlines())]
    return [child for parent, child in pairs if parent == pid]


def _parent_in_proc(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


class Reaper:
    """The owner's end of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Nothing of the owner is inherited: whoever waits for the end of its output must not wait for the reaper.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, directory],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=directory.parent,
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        """End this process with the owner. It must be a child that was not waited for, so that the pid is still its own."""
        with suppress(BrokenPipeError):  # somebody killed the reaper: stop() and the exit still end everything
            self._input.write(f"{pid} {birth(pid)}\n".encode())

    def dismiss(self) -> None:
        """Remove the directory, and end the reaper: there is nothing left for it to do."""
        give_back_shared_memory(self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._process.kill()
        self._process.wait()
        self._input.close()

    def abandon(self) -> None:
        """Let go of it in a forked child, where an open end of the pipe would hide the parent's end."""
        self._input.close()
        self._process.poll()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin


def main(directory: str) -> None:
    """Wait for the owner's end, then do what it can't do any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to everything at a shutdown; EOF follows
        signal.signal(number, signal.SIG_IGN)
    watched = [line.rstrip("\n").partition(" ") for line in sys.stdin]
    _kill([(int(pid), born) for pid, _, born in watched])
    give_back_shared_memory(Path(directory))
    _remove(Path(directory))


def _kill(watched: list[tuple[int, str]]) -> None:
    for _ in range(_ROUNDS):
        left = [pid for pid, born in watched if born and birth(pid) == born]
        if not left:
            return
        for pid in left:
            offspring = children_of(pid)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            for child in offspring:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        sleep(_PAUSE)


def give_back_shared_memory(directory: Path) -> None:
    """Remove what each PostgreSQL that was killed in there holds of System V shared memory.

    A few bytes, and one of the 4,096 pieces that the whole system has by default; then no PostgreSQL starts any more.
    """
    for noted in directory.glob("*/data/postmaster.pid"):  # one that was shut down in order has removed it
        with suppress(OSError, ValueError, AttributeError):  # no such lines, or no such thing on this system
            key, piece = map(int, noted.read_text().splitlines()[6].split())
            system = ctypes.CDLL(None)
            if system.shmget(key, 0, 0) == piece:
                system.shmctl(piece, _REMOVE, None)


def _remove(directory: Path) -> None:
    """Remove it for good: a program that the owner waited for, as initdb, may have been writing there, and ends soon."""
    for _ in range(_ROUNDS):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        sleep(_PAUSE)


if __name__ == "__main__":
    main(sys.argv[1])
