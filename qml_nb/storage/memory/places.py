"""Where each job of the memory storage lies: in a lane, in the calendar, with a worker or on the shelf."""

from __future__ import annotations

import sys
from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Lock
from time import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_nb.states import AWAITING_RETRY, ENQUEUED, FAILED, FINAL, PROCESSING, SCHEDULED
from qml_nb.storage.memory.queues import Queues
from qml_nb.storage.memory.uniques import Uniques

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qml_nb.config import MemoryConfig
    from qml_nb.job import Job
    from qml_nb.states import JobState
    from qml_nb.storage.memory.lanes import Queue

_tie = count()  # jobs have no order of their own, and two may be due at one instant
_DEAD_KEPT = 1_000


class Places(Queues):
    """Moves jobs between their places. Every method is called under the lock."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(Lock())
        self.config = config
        self._calendar: list[tuple[float, int, Job]] = []  # scheduled and retried jobs by due time
        self._shelf: dict[JobState, deque[Job]] = {state: deque() for state in FINAL}  # finished jobs by age
        self._finished = 0
        self._next_claim = count(1).__next__
        self._max_jobs = sys.maxsize if config.max_jobs is None else config.max_jobs
        self._uniques = Uniques()

    # -- under the lock: where a job lies

    @property
    def _live(self) -> int:
        return len(self._jobs) - self._finished

    def _admit(self, job: Job, now: float | None = None) -> bool:
        """Store a new job where it belongs. False: its id is there already, or its key is taken."""
        job_id, index = job.id, self._jobs
        part = index.newest if job_id >= index.bound else index.part(job_id)
        if job_id in part:
            return False
        if job.extras is not None and not self._uniques.take(job, time() if now is None else now):
            return False
        part[job_id] = job
        if part is not index.newest:
            index.older += 1
        try:
            queue = self._queues[job.queue]
        except KeyError:
            queue = self._queue(job.queue)
        if job.state is ENQUEUED and not queue.dead:
            queue.push(job)
        else:
            self._place(job, queue)
        return True

    def _place(self, job: Job, queue: Queue) -> None:
        """Put a new job where it belongs, also if that very object lies there already, as one that was erased."""
        another = replace(job)  # leaves the entry of the erased one dead
        self._jobs.replace(another)
        if job.state is ENQUEUED:
            queue.push(another)
        else:
            queue.counts[SCHEDULED] += 1
            self._note(another)

    def _put(self, old: Job, new: Job) -> None:
        """Put `new` in the place of `old`, wherever the two belong."""
        left = queue = self._queues[old.queue]
        self._leave(old, queue)
        self._jobs.replace(new)
        if new.queue != old.queue:
            queue = self._queue(new.queue)
        state = new.state
        if state is ENQUEUED:
            queue.push(new)
            if self._parked:
                self._offer(queue, 1)
            return
        queue.counts[state] += 1
        if state in FINAL:
            self._shelf[state].append(new)
            self._finished += 1
            if (self._uniques.held or self._watched) and old.state not in FINAL:
                self._end(new)
        elif state is PROCESSING:
            self._running[new.id] = new
        else:
            self._note(new)
        if old.state is PROCESSING:
            self._give_turns(left, 1)

    def _end(self, job: Job) -> None:
        """Free what the job held while it was unfinished, and tell who watches it."""
        self._uniques.finish(job)
        self._tell(job.id)

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
        queue = self._queues[job.queue]
        self._leave(job, queue)
        self._jobs.remove(job.id)
        self._job_locks.pop(job.id, None)
        if self._watched:
            self._tell(job.id)
            self._watched.pop(job.id, None)
        if job.state is PROCESSING:
            self._give_turns(queue, 1)

    def _note(self, job: Job) -> None:
        heappush(self._calendar, (job.run_ts or 0.0, next(_tie), job))

    def _pop_due(self, now: float) -> Iterator[Job]:
        calendar = self._calendar
        while calendar and calendar[0][0] <= now:
            job = heappop(calendar)[2]
            if self._jobs.get(job.id) is job:
                yield job

    def _forget(self, now: float) -> None:
        super()._forget(now)
        self._uniques.forget(now)

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


def by_id(job: Job) -> str:
    """Sort by age."""
    return job.id


def by_end(job: Job) -> float:
    """Sort finished jobs by their end."""
    return job.finished_ts or 0.0
