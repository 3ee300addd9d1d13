"""Child processes that end with the process that started them, however that ends, and the pipe between the two.

The pipe is a pair of sockets that nobody else inherits: when the parent is gone, the child reads its end. A thread of
the child waits for that, whatever the others do, and looks whether the parent still is the parent, since a process that
was forked from it holds on to its end of the pipe. Where not even that thread runs, because a call into C keeps the
interpreter to itself, Linux kills the child when the thread ends that started it; so that thread must live as long.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from socket import socket, socketpair
from subprocess import DEVNULL, Popen
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Final

from qml_nb.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

CAN_SPAWN: Final = hasattr(os, "killpg") and hasattr(select, "poll")
"""Whether this system can start such processes; Windows can't."""
_ROOT = str(Path(__file__).resolve().parents[2])
# Not `-m`: this package may be known only to the parent's sys.path, and cwd is no place to import it from.
_CODE = "import sys; sys.path.append({root!r}); from {module} import main; main()"
HEAD: Final = 8
"""How many bytes of a message say how long the rest is."""
_CHUNK = 1 << 18
_LOOK = 0.5
_FIRST_POLL, _LAST_POLL = 0.001, 0.1
_PR_SET_PDEATHSIG = 1


class Pipe:
    """One end of the pipe, in an event loop: whole messages go through, as bytes."""

    def __init__(self, end: socket) -> None:
        end.setblocking(False)
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()

    async def write(self, message: bytes) -> None:
        """Send a message. At most one caller at a time.

        Raises:
            ConnectionError: nobody is at the other end.
        """
        await self._loop.sock_sendall(self._end, framed(message))

    async def read(self) -> bytes | None:
        """Return the next message; None if there is nobody at the other end any more."""
        head = await self._exactly(HEAD)
        return None if head is None else await self._exactly(int.from_bytes(head, "big"))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._read) < size:
            try:
                chunk = await self._loop.sock_recv(self._end, _CHUNK)
            except ConnectionError:  # it ended with messages of ours unread
                return None
            if not chunk:
                return None
            self._read += chunk
        data = bytes(self._read[:size])
        del self._read[:size]
        return data

    def close(self) -> None:
        """Let go of it. Nobody may be reading or writing."""
        self._end.close()


def framed(message: bytes) -> bytes:
    """Return a message as it goes through a pipe: after its length."""
    return len(message).to_bytes(HEAD, "big") + message


class Child:
    """A child process, the parent's end; made and used in one event loop, whose thread must outlive it.

    It leads a session of its own: Ctrl-C, and what a notebook sends to all processes of a kernel, does not reach it. Its
    output goes where the parent's goes.
    """

    def __init__(self, module: str) -> None:
        ours, theirs = socketpair()
        with theirs:
            code = _CODE.format(root=_ROOT, module=module)
            try:
                self._process = Popen(
                    [sys.executable, "-P", "-c", code, str(theirs.fileno()), str(os.getpid())],
                    stdin=DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self.pipe = Pipe(ours)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it, and what it forked, at once: SIGKILL. Does nothing if it has ended."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> int:
        """Return its exit status as soon as it has ended."""
        pause = _FIRST_POLL
        while (status := self._process.poll()) is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_POLL)
        return status

    async def end(self, patience: float = 0.0) -> int:
        """Return its exit status once it has ended; kill it if it hasn't by itself in so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self.ended()
        self.kill()
        return await self.ended()


def module_path() -> list[str]:
    """Return where this process looks for modules, for a child to look there too."""
    return [str(place) for place in sys.path]


def how(status: int) -> str:
    """Say how a process ended.

    >>> how(-9), how(3)
    ('was killed by signal 9', 'ended with status 3')
    """
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def check_can_spawn(field: str, value: object) -> None:
    """Raise if this system can't start such processes."""
    if not CAN_SPAWN:
        raise InvalidValue(field, "to be something else on this system", value, "it needs what POSIX systems have")


# -- in the child


def hold_on(patience: float = 0.0) -> socket:
    """Return this child's end of the pipe; end this process `patience` seconds after the parent has ended."""
    descriptor, parent = int(sys.argv[-2]), int(sys.argv[-1])
    end = socket(fileno=descriptor)
    end.set_inheritable(False)
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a service: what to do, the parent says
        signal.signal(number, lambda *_: None)  # and what a task starts does not inherit it, as it would SIG_IGN
    for output in (sys.stdout, sys.stderr):  # else what a task prints is seen late, or never
        if output is not None and hasattr(output, "reconfigure"):
            output.reconfigure(line_buffering=True)
    Thread(target=_watch, args=(descriptor, parent, patience), name="lifeline", daemon=True).start()
    return end


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before that
        os._exit(1)


def _watch(descriptor: int, parent: int, patience: float, leave: Callable[[int], object] = os._exit) -> None:
    gone = select.poll()
    gone.register(descriptor, 0)  # nothing but the end of the other end
    while not gone.poll(_LOOK * 1000) and os.getppid() == parent:
        pass
    sleep(patience)
    leave(1)
