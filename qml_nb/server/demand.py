"""How many jobs a server claims at a time."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qml_nb.server.slots import Slots

QUICK: Final = 250_000
"""Nanoseconds: jobs that start within so short a time are claimed together, since a claim costs as much as some jobs."""
MOST: Final = 64
"""How many jobs a claim may ask for beyond the idle slots. With more slots than that: one for each slot."""


class Demand:
    """What the next claim asks for: jobs for the idle slots, and for those that idle once the answer is here.

    How many those are, the last claim tells: jobs that started from one claim to the next, for the time that the
    answer takes. They are few for jobs that take long, and for those that take less than a trip to the storage, work
    goes on while the next claim is under way.

    Args:
        slots: who is to work.
        least: how many jobs a claim asks for at least; with 1 none is claimed before a slot is idle.
        ahead: whether a claim takes a trip, and is worth to be made before a slot is idle.
    """

    def __init__(self, slots: Slots, least: int, *, ahead: bool) -> None:
        self._slots, self._least, self._goes_ahead = slots, least, ahead
        self._ahead = self._claimed = self._asked_at = self._asked_before = 0

    def jobs(self) -> int:
        """Return how many jobs to ask for now; 0 while there are enough."""
        slots, ahead = self._slots, self._ahead
        if slots.buffer:
            return 0
        if slots.idle > 0:
            return max(slots.idle + ahead, self._least)
        return ahead if self._goes_ahead and ahead >= self._least else 0

    def asks(self) -> None:
        """A claim begins."""
        self._asked_before, self._asked_at = self._asked_at, perf_counter_ns()

    def gets(self, jobs: int) -> None:
        """A claim ends, with so many jobs."""
        if self._least > 1:
            took, since = perf_counter_ns() - self._asked_at, self._asked_at - self._asked_before
            started = self._claimed * max(took, QUICK) // max(since, 1)
            self._ahead = min(started, max(self._slots.count, MOST)) if jobs else 0
            self._claimed = jobs
