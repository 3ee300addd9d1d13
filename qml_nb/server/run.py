"""One job in a slot, from its start to its outcome."""

from __future__ import annotations

from threading import Event, Lock
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    import asyncio

    from qml_nb.job import Job, Outcome
    from qml_nb.server.registry import Task

NS: Final = 1_000_000_000
_making = Lock()


class Run(Struct, eq=False, gc=False):
    """One job in a slot. Instants are nanoseconds of `perf_counter_ns`."""

    job: Job
    claimed: int
    started: int
    deadline: float
    ended: int = 0
    outcome: Outcome | None = None
    """What became of it, once it has ended; None even then if its lease was lost, and its outcome is nobody's."""
    reason: str = ""
    """Why it was cancelled: "timeout", "stop" or "lost" (its claim)."""
    spec: Task | None = None
    """What is registered under the job's method; None if nothing is."""
    task: asyncio.Task[None] | None = None
    watch: Event | None = None
    """Is set when it is cancelled; there only if the job has asked for that."""

    @property
    def is_over(self) -> bool:
        """Whether its task has ended. One that was cancelled before its first step has, and told nobody."""
        return self.task is None or self.task.done()

    def watched(self) -> Event:
        """Return `watch`, for the job in whichever thread."""
        with _making:
            if self.watch is None:
                self.watch = Event()
        if self.reason:  # between the look of `mark` and the event's appearance
            self.watch.set()
        return self.watch

    def mark(self, reason: str) -> None:
        """Note that it is cancelled, and tell the job if it watches."""
        self.reason = reason
        if self.watch is not None:
            self.watch.set()

    def cancel(self, reason: str) -> None:
        """Cancel the job's task; it has a grace period to end."""
        self.deadline = min(self.deadline, perf_counter_ns())
        self.mark(reason)
        if self.task is not None:
            self.task.cancel()
