"""What the memory storage takes in: jobs that are new, for which there is room."""

from __future__ import annotations

from collections import Counter
from time import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_nb.errors import CapacityExceeded, QueueFull
from qml_nb.states import DELETED, DROPPED, ENQUEUED
from qml_nb.storage.memory.index import PART
from qml_nb.storage.memory.moves import moved
from qml_nb.storage.memory.places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.job import Job
    from qml_nb.storage.backend import Recurring
    from qml_nb.storage.memory.lanes import Queue


class Admission(Places):
    """The verbs of `Backend` by which jobs come in."""

    async def push(self, jobs: Sequence[Job], *, each: bool = False, now: float | None = None) -> Sequence[bool | None]:
        """See `Backend.push`."""
        with self._lock:
            self._make_room(jobs, now)
            if self._limited:
                return self._admit_within_limits(jobs, each, now)
            new = [self._admit(job, now) for job in jobs]
            if self._parked:
                self._wake(jobs)
        return new

    def push_now(self, job: Job) -> bool | None:
        """See `LocalBackend.push_now`."""
        index = self._jobs
        with self._lock:
            newest = len(index.newest)
            if newest > PART or index.older + newest >= self._max_jobs:
                self._make_room((job,))
            if self._limited:
                return self._admit_within_limits((job,), True)[0]
            new = self._admit(job)
            if self._parked:
                self._wake((job,))
            return new

    async def swap_recurring(
        self, old: Recurring | None, new: Recurring, jobs: Sequence[Job] = (), *, now: float | None = None
    ) -> bool:
        """See `Backend.swap_recurring`."""
        with self._lock:
            if self._recurring.get(new.id) != old:
                return False
            self._make_room(jobs, now)
            self._recurring[new.id] = new
            for job in jobs:
                self._admit(job, now)
            if self._parked:
                self._wake(jobs)
            return True

    async def holders(self, keys: Sequence[str], *, now: float | None = None) -> list[str | None]:
        """See `Backend.holders`."""
        now = time() if now is None else now
        with self._lock:
            return [self._uniques.holder(key, now) for key in keys]

    # -- under the lock: the bound of the storage

    def _make_room(self, jobs: Sequence[Job], now: float | None = None) -> None:
        """Begin a new part of the index if it is time, and refuse a batch that doesn't fit.

        What is not new takes no room, and neither do finished jobs.
        """
        if len(self._jobs.newest) > PART:
            self._jobs.begin_part()
        if self._live + len(jobs) <= self._max_jobs:
            return
        new = len(self._new(jobs, now))
        if new and self._live + new > self._max_jobs:
            raise CapacityExceeded(self._max_jobs, self._live, new)

    def _new(self, jobs: Sequence[Job], now: float | None) -> list[Job]:
        """Return the jobs whose id and key nobody has, nor one before them."""
        now = time() if now is None else now
        ids: set[str] = set()
        keys: set[str] = set()
        new = []
        for job in jobs:
            key = job.unique_key
            if job.id in ids or job.id in self._jobs or key in keys or not self._uniques.is_free(job, now):
                continue
            new.append(job)
            ids.add(job.id)
            if key is not None:
                keys.add(key)
        return new

    def _let_return(self, finished: list[Job], moving: dict[str, Job], now: float) -> None:
        """Let finished jobs take their keys and their room again, and take out of `moving` those that can't."""
        keys: set[str] = set()
        for job in finished:
            key = job.unique_key if job.unique_for is None else None
            if key is not None and (key in keys or not self._uniques.is_free(job, now)):
                del moving[job.id]
            elif key is not None:
                keys.add(key)
        returning = [job for job in finished if job.id in moving]
        if returning and self._live + len(returning) > self._max_jobs:
            raise CapacityExceeded(self._max_jobs, self._live, len(returning))
        for job in returning:
            if job.unique_for is None:
                self._uniques.take(job, now)

    # -- under the lock: the bounds of queues

    def _admit_within_limits(self, jobs: Sequence[Job], each: bool, now: float | None = None) -> Sequence[bool | None]:
        now = time() if now is None else now
        if each:
            answers = [self._admit_if_room(job, now) for job in jobs]
        else:
            self._check_room(jobs, now)
            answers = [self._admit(job, now) for job in jobs]
        came = [job for job, stored in zip(jobs, answers, strict=True) if stored and job.state is ENQUEUED]
        for name in self._limited.keys() & {job.queue for job in came}:
            self._drop_oldest(self._queues[name], now)
        self._bound_shelf()
        if self._parked and came:
            self._wake(came)
        return answers

    def _check_room(self, jobs: Sequence[Job], now: float) -> None:
        """Refuse a batch that doesn't fit into its queues."""
        offered = Counter(job.queue for job in self._new(jobs, now) if job.state is ENQUEUED)
        for name, many in offered.items():
            limits = self._limited.get(name)
            if limits is not None and many > limits.room(self._queues[name].waiting):
                raise QueueFull(name, limits.config.max_waiting or 0, many)

    def _admit_if_room(self, job: Job, now: float) -> bool | None:
        limits = self._limited.get(job.queue)
        if limits is None or job.state is not ENQUEUED or limits.room(self._queues[job.queue].waiting):
            return self._admit(job, now)
        return None if self._new((job,), now) else False

    def _drop_oldest(self, queue: Queue, now: float) -> None:
        for _ in range(0 if queue.limits is None else queue.limits.surplus(queue.waiting)):
            oldest = queue.pop_oldest()
            if oldest is not None:
                self._put(oldest, replace(moved(oldest, DELETED, now, self._expiry(DELETED, now)), error=DROPPED))
                queue.dead -= 1  # its entry is gone

    # -- under the lock: who waits for what came in

    def _wake(self, jobs: Sequence[Job]) -> None:
        """Wake a waiter for each job that came."""
        came = {jobs[0].queue: 1} if len(jobs) == 1 else Counter(job.queue for job in jobs)
        for name, many in came.items():
            if queue := self._queues.get(name):
                self._offer(queue, many)
