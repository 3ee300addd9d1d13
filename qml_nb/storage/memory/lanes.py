"""Waiting jobs of one queue, in order: a lane for each priority, and in a lane by id."""

from __future__ import annotations

import sys
from bisect import insort
from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from operator import neg
from typing import TYPE_CHECKING

from qml_nb.states import ENQUEUED, PROCESSING, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qml_nb.job import Job
    from qml_nb.storage.memory.index import JobIndex
    from qml_nb.storage.memory.limits import Limits

_tie = count()  # two entries of one id may lie in a heap, and jobs have no order of their own
_LANES_KEPT = 8  # a lane that runs empty is mostly used again at once


class _Lane:
    """Jobs of one priority. New ids sort behind old ones, so nearly all join `fresh` at its end, in one step.

    A job that comes back (a retry, a promotion, a lost lease) is older than what waits: it goes to `late`, a heap.
    """

    __slots__ = ("fresh", "late")

    def __init__(self) -> None:
        self.fresh: deque[Job] = deque()
        self.late: list[tuple[str, int, Job]] = []

    def pop(self) -> Job:
        if self.late and not (self.fresh and self.fresh[0].id < self.late[0][0]):
            return heappop(self.late)[2]
        return self.fresh.popleft()

    def head(self) -> Job:
        if self.late and not (self.fresh and self.fresh[0].id < self.late[0][0]):
            return self.late[0][2]
        return self.fresh[0]

    def __len__(self) -> int:
        return len(self.fresh) + len(self.late)

    def keep(self, jobs: JobIndex) -> None:
        """Drop the entries that are no longer so."""
        self.fresh = deque(job for job in self.fresh if jobs.get(job.id) is job)
        self.late = [entry for entry in self.late if jobs.get(entry[0]) is entry[2]]
        heapify(self.late)


class Queue:
    """One queue's waiting jobs, and its exact count of jobs in every other state.

    Jobs are immutable, so an entry is right as long as the store holds that very object under its id. One that was
    cancelled or changed meanwhile is passed over when its turn comes (`dead` counts them): no search in the middle.
    """

    __slots__ = ("_jobs", "counts", "dead", "lanes", "limits", "name", "order", "paused")

    def __init__(self, name: str, jobs: JobIndex) -> None:
        self.name = name
        self.counts = dict.fromkeys((state for state in JobState if state is not ENQUEUED), 0)
        self.paused = False
        self.limits: Limits | None = None
        self.lanes: dict[int, _Lane] = {}
        self.order: list[int] = []
        self.dead = 0
        self._jobs = jobs

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(map(len, self.lanes.values())) - self.dead

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting the queue."""
        return not self.paused and self.limits is None and not any(self.counts.values()) and not self.waiting

    def turns(self, now: float) -> int:
        """Return how many jobs the queue may give, if that many wait."""
        return sys.maxsize if self.limits is None else self.limits.turns(self.counts[PROCESSING], now)

    def next_turn(self) -> float:
        """Return the instant from which on it may give one; infinity if not time brings it."""
        return inf if self.limits is None else self.limits.next_turn(self.counts[PROCESSING])

    def push(self, job: Job) -> None:
        """Add a waiting job where its priority and its age put it."""
        try:
            fresh = self.lanes[job.priority].fresh
        except KeyError:
            fresh = self._add_lane(job.priority).fresh
        if not fresh or fresh[-1].id < job.id:
            fresh.append(job)
        else:
            heappush(self.lanes[job.priority].late, (job.id, next(_tie), job))

    def take(self, limit: int) -> list[Job]:
        """Remove and return up to `limit` jobs, in order."""
        taken: list[Job] = []
        jobs = self._jobs
        for priority in self.order:
            lane = self.lanes[priority]
            fresh, late = lane.fresh, lane.late
            while fresh or late:
                job = lane.pop() if late else fresh.popleft()
                if self.dead and jobs.get(job.id) is not job:
                    self.dead -= 1
                    continue
                taken.append(job)
                if len(taken) == limit:
                    return taken
        if len(self.order) > _LANES_KEPT:
            self.tidy()
        return taken

    def head(self) -> Job | None:
        """Return the job that is next, and leave it there."""
        return self._first(self.order)

    def pop_oldest(self) -> Job | None:
        """Remove and return the oldest job of the lowest priority."""
        oldest = self._first(reversed(self.order))
        return None if oldest is None else self.lanes[oldest.priority].pop()

    def _first(self, priorities: Iterable[int]) -> Job | None:
        for priority in priorities:
            lane = self.lanes[priority]
            while lane:
                job = lane.head()
                if self._jobs.get(job.id) is job:
                    return job
                lane.pop()
                self.dead -= 1
        return None

    def __iter__(self) -> Iterator[Job]:
        """Yield the waiting jobs in order."""
        for priority in self.order:
            lane = self.lanes[priority]
            entries = sorted([*lane.fresh, *(entry[2] for entry in lane.late)], key=_by_id) if lane.late else lane.fresh
            yield from (job for job in entries if self._jobs.get(job.id) is job)

    def tidy(self) -> None:
        """Drop dead entries and empty lanes."""
        for lane in self.lanes.values() if self.dead else ():
            lane.keep(self._jobs)
        self.dead = 0
        self.lanes = {priority: lane for priority, lane in self.lanes.items() if lane}
        self.order = sorted(self.lanes, reverse=True)

    def _add_lane(self, priority: int) -> _Lane:
        self.lanes[priority] = lane = _Lane()
        insort(self.order, priority, key=neg)
        return lane


def _by_id(job: Job) -> str:
    return job.id
