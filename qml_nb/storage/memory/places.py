"""Where each job of the memory storage lies: in a lane, in the calendar, with a worker or on the shelf."""

from __future__ import annotations

import sys
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from threading import Lock
from time import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_nb.errors import CapacityExceeded
from qml_nb.job import AWAITING_RETRY, ENQUEUED, FAILED, FINAL, PROCESSING, SCHEDULED
from qml_nb.storage.memory.index import PART
from qml_nb.storage.memory.lanes import Queue
from qml_nb.storage.memory.records import MemoryRecords

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from qml_nb.config import MemoryConfig
    from qml_nb.job import Job, JobState

_tie = count()  # jobs have no order of their own, and two may be due at one instant
_DEAD_KEPT = 1_000


class Places(MemoryRecords):
    """Moves jobs between their places. Every method is called under the lock."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(Lock())
        self.config = config
        self._calendar: list[tuple[float, int, Job]] = []  # scheduled and retried jobs by due time
        self._shelf: dict[JobState, deque[Job]] = {state: deque() for state in FINAL}  # finished jobs by age
        self._finished = 0
        self._next_claim = count(1).__next__
        self._max_jobs = sys.maxsize if config.max_jobs is None else config.max_jobs
        self._parked = self._waiters.parked

    # -- under the lock: where a job lies

    @property
    def _live(self) -> int:
        return len(self._jobs) - self._finished

    def _admit(self, job: Job) -> bool:
        """Store a new job where it belongs. False: its id is there already."""
        job_id, index = job.id, self._jobs
        part = index.newest if job_id >= index.bound else index.part(job_id)
        if job_id in part:
            return False
        part[job_id] = job
        if part is not index.newest:
            index.older += 1
        try:
            queue = self._queues[job.queue]
        except KeyError:
            queue = self._add_queue(job.queue)
        if job.state is ENQUEUED and not queue.dead:
            queue.push(job)
        else:
            self._place(job, queue)
        return True

    def _make_room(self, jobs: Sequence[Job]) -> None:
        """Begin a new part of the index if it is time, and refuse a batch that doesn't fit.

        Ids that are there already take no room, and neither do finished jobs.
        """
        if len(self._jobs.newest) > PART:
            self._jobs.begin_part()
        if self._live + len(jobs) <= self._max_jobs:
            return
        new = len({job.id for job in jobs if job.id not in self._jobs})
        if new and self._live + new > self._max_jobs:
            raise CapacityExceeded(self._max_jobs, self._live, new)

    def _add_queue(self, name: str) -> Queue:
        self._queues[name] = queue = Queue(name, self._jobs)
        return queue

    def _open_queues(self, names: Collection[str] | None) -> list[Queue]:
        if names is None:
            return [queue for queue in self._queues.values() if not queue.paused]
        return [queue for name in names if (queue := self._queues.get(name)) is not None and not queue.paused]

    def _has_work(self, queue: Queue) -> bool:
        return bool(queue.waiting) and (not self._job_locks or any(True for _ in self._unlocked(queue)))

    def _unlocked(self, queue: Queue) -> Iterator[Job]:
        now = time()
        return (job for job in queue if not self._is_locked(job.id, None, now))

    def _take_unlocked(self, queues: list[Queue], limit: int, worker: str, now: float) -> list[Job]:
        """Take jobs, but leave those whose lock somebody else holds in their place."""
        free: list[Job] = []
        locked: list[Job] = []
        while len(free) < limit and (taken := take(queues, limit - len(free))):
            for job in taken:
                (locked if self._is_locked(job.id, worker, now) else free).append(job)
        for job in locked:
            self._queues[job.queue].push(job)
        return free

    def _place(self, job: Job, queue: Queue) -> None:
        """Put a new job where it belongs, also if that very object lies there already, as one that was erased."""
        if job.state is ENQUEUED:
            another = replace(job)  # leaves the entry of the erased one dead
            self._jobs.replace(another)
            queue.push(another)
        else:
            queue.counts[SCHEDULED] += 1
            self._note(job)

    def _put(self, old: Job, new: Job) -> None:
        """Put `new` in the place of `old`, wherever the two belong."""
        queue = self._queues[old.queue]
        self._leave(old, queue)
        self._jobs.replace(new)
        if new.queue != old.queue:
            queue = self._queues.get(new.queue) or self._add_queue(new.queue)
        state = new.state
        if state is ENQUEUED:
            queue.push(new)
            if self._parked:
                self._waiters.wake(new.queue, 1)
            return
        queue.counts[state] += 1
        if state in FINAL:
            self._shelf[state].append(new)
            self._finished += 1
        elif state is PROCESSING:
            self._running[new.id] = new
        else:
            self._note(new)

    def _count_claimed(self, jobs: list[Job]) -> None:
        """Count jobs that were claimed from several queues."""
        for job in jobs:
            self._queues[job.queue].counts[PROCESSING] += 1

    def _leave(self, job: Job, queue: Queue) -> None:
        """Take a job out of the counts; entries for it in a lane, the calendar or the shelf are dead from now on."""
        state = job.state
        if state is ENQUEUED:
            queue.dead += 1
            return
        queue.counts[state] -= 1
        if state is PROCESSING:
            del self._running[job.id]
        elif state in FINAL:
            self._finished -= 1

    def _take_out(self, job: Job) -> None:
        self._leave(job, self._queues[job.queue])
        self._jobs.remove(job.id)
        self._job_locks.pop(job.id, None)

    def _note(self, job: Job) -> None:
        heappush(self._calendar, (job.run_ts or 0.0, next(_tie), job))

    def _pop_due(self, now: float) -> Iterator[Job]:
        calendar = self._calendar
        while calendar and calendar[0][0] <= now:
            job = heappop(calendar)[2]
            if self._jobs.get(job.id) is job:
                yield job

    # -- under the lock: finished jobs go when their time is up, or when they are too many

    def _expiry(self, state: JobState, now: float) -> float | None:
        ttl = self.config.failed_job_ttl if state is FAILED else self.config.completed_job_ttl
        return now + ttl if ttl is not None and state in FINAL else None

    def _bound_shelf(self) -> None:
        most = self.config.max_finished_jobs
        while most is not None and self._finished > most:
            heads = [head for state in FINAL if (head := self._oldest(state)) is not None]
            self._take_out(min(heads, key=by_end))

    def _oldest(self, state: JobState) -> Job | None:
        shelf = self._shelf[state]
        while shelf and self._jobs.get(shelf[0].id) is not shelf[0]:
            shelf.popleft()
        return shelf[0] if shelf else None

    def _prune(self, limit: int, now: float) -> int:
        pruned = 0
        for state in FINAL:
            while (
                pruned < limit and (job := self._oldest(state)) and job.expires_ts is not None and job.expires_ts <= now
            ):
                self._take_out(job)
                pruned += 1
        self._tidy()
        return pruned

    def _tidy(self) -> None:
        """Drop dead entries where they are the most: what is cancelled or requeued for ever must not pile up."""
        jobs = self._jobs
        for queue in [queue for queue in self._queues.values() if queue.is_idle]:
            del self._queues[queue.name]
        for queue in self._queues.values():
            if queue.dead > _DEAD_KEPT + queue.waiting:
                queue.tidy()
        dated = sum(q.counts[SCHEDULED] + q.counts[AWAITING_RETRY] for q in self._queues.values())
        if len(self._calendar) > _DEAD_KEPT + 2 * dated:
            self._calendar = [entry for entry in self._calendar if jobs.get(entry[2].id) is entry[2]]
            heapify(self._calendar)
        for shelf in self._shelf.values():
            if len(shelf) > _DEAD_KEPT + 2 * self._finished:
                kept = [job for job in shelf if jobs.get(job.id) is job]
                shelf.clear()
                shelf.extend(kept)


def take(queues: list[Queue], limit: int) -> list[Job]:
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


def claim_order(job: Job) -> tuple[int, str]:
    """Sort as `claim` hands out."""
    return -job.priority, job.id


def by_id(job: Job) -> str:
    """Sort by age."""
    return job.id


def by_end(job: Job) -> float:
    """Sort finished jobs by their end."""
    return job.finished_ts or 0.0
