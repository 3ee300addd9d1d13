"""What the queues of the memory storage give to one claim, in order over all of them."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qml_nb.job import Job
    from qml_nb.storage.memory.lanes import Queue


class Offer:
    """A queue as one claim sees it: no more jobs than it has turns, and none that is barred to who claims.

    It stands wherever `take` asks for a queue; `close` puts back what it had to lay aside.
    """

    __slots__ = ("_aside", "_barred", "_given", "_queue", "_turns")

    def __init__(self, queue: Queue, barred: Callable[[Job], bool], now: float) -> None:
        self._queue = queue
        self._barred = barred
        self._turns = queue.turns(now)
        self._given = 0
        self._aside: list[Job] = []

    def head(self) -> Job | None:
        """Return the job that is next, and leave it there."""
        while self._given < self._turns and (job := self._queue.head()) is not None:
            if not self._barred(job):
                return job
            self._aside += self._queue.take(1)
        return None

    def take(self, limit: int) -> list[Job]:
        """Remove and return up to `limit` jobs, in order."""
        taken: list[Job] = []
        while len(taken) < limit and self.head() is not None:
            taken += self._queue.take(1)
            self._given += 1
        return taken

    def close(self, now: float) -> None:
        """Note what was given."""
        for job in self._aside:
            self._queue.push(job)
        if self._given and self._queue.limits is not None:
            self._queue.limits.use(self._given, now)


def take(queues: Sequence[Queue | Offer], limit: int) -> list[Job]:
    """Take jobs in order over all the queues."""
    if len(queues) == 1:
        return queues[0].take(limit)
    heads = [(*claim_order(head), queue) for queue in queues if (head := queue.head())]
    heapify(heads)
    taken: list[Job] = []
    while heads and len(taken) < limit:
        queue = heads[0][2]
        taken += queue.take(1)
        if head := queue.head():
            heapreplace(heads, (*claim_order(head), queue))
        else:
            heappop(heads)
    return taken


def take_in_turn(queues: Sequence[Queue | Offer], limit: int) -> list[Job]:
    """Take jobs from the first queue, then from the next, and so on."""
    taken: list[Job] = []
    for queue in queues:
        if len(taken) < limit:
            taken += queue.take(limit - len(taken))
    return taken


def claim_order(job: Job) -> tuple[int, str]:
    """Sort as `claim` hands out."""
    return -job.priority, job.id
