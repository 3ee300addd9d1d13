"""Commands in processes of their own: where their storage is, and workers for tasks that they find in their directory."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from qml_nb import Storage

LONG = 60.0
"""Seconds that nothing takes; it only ends a test that hangs."""
CLI = ("-c", "from qml_nb.cli import main; main()")
TASKS = '''
import asyncio, os, time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from qml_nb import Storage
from qml_nb import WorkerRegistry

registry = WorkerRegistry()
lines = os.open("lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(what, number):
    os.write(lines, f"{what} {number}\\n".encode())

@registry.task
async def hold(number):
    """Run until the file `go` is there."""
    note("began", number)
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)
    note("ended", number)

@registry.task
def block(number):
    """Wait in a call that nobody can interrupt."""
    note("began", number)
    time.sleep(3600)

@registry.task(process=True)
def pid():
    """Say which process it is, and be busy for a moment."""
    time.sleep(0.1)
    return os.getpid()

@registry.task
async def hog(number):
    """Never give the event loop back."""
    note("began", number)
    while True:
        pass
'''


class Address(NamedTuple):
    """Where a test's own storage is: for Python, and for the command line."""

    url: str
    options: dict[str, str]

    @property
    def words(self) -> tuple[str, ...]:
        """The options as a person writes them."""
        return tuple(word for name, value in self.options.items() for word in (f"--{name.replace('_', '-')}", value))


class Worker:
    """One process, and what it says."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stderr=log, stdout=log)

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self._log.read_text()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def status(self) -> int:
        """Wait for its end, and return its exit status."""
        return self._process.wait(LONG)

    def kill(self) -> None:
        """End it with -9, if it has not ended."""
        self._process.kill()
        self._process.wait()


class Place:
    """A directory with tasks, and the workers that serve them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._workers: list[Worker] = []
        (folder / "tasks.py").write_text(TASKS)

    def work(self, url: str, *options: str, registry: str = "tasks:registry") -> Worker:
        """Start one more worker."""
        return self.run(*CLI, "work", url, registry, *options)

    def run(self, *arguments: str) -> Worker:
        """Start one more process of this Python."""
        worker = Worker(self.folder, f"worker{len(self._workers)}", *arguments)
        self._workers.append(worker)
        return worker

    def go(self) -> None:
        """Let jobs end that hold."""
        (self.folder / "go").touch()

    def noted(self, what: str) -> Counter[int]:
        """How often each number began, or ended."""
        lines = self.folder / "lines"
        words = [line.split() for line in lines.read_text().splitlines()] if lines.exists() else []
        return Counter(int(number) for noted, number in words if noted == what)

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self._workers:
            worker.kill()


async def until(true: Callable[[], Any]) -> None:
    """Return once the condition, plain or to be awaited, holds."""
    async with asyncio.timeout(LONG):
        while not (await answer if isinstance(answer := true(), Awaitable) else answer):
            await asyncio.sleep(0.01)


async def counts(storage: Storage) -> dict[str, int]:
    """How many jobs are in each state."""
    return {state.value: many for state, many in (await storage.get_job_counts()).items() if many}


def counted(storage: Storage, **wanted: int) -> Callable[[], Awaitable[bool]]:
    """Whether that is how many jobs are in each state."""

    async def are() -> bool:
        return await counts(storage) == wanted

    return are
