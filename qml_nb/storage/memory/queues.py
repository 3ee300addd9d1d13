"""What the queues of the memory storage may give at an instant, and who waits for it."""

from __future__ import annotations

from itertools import islice
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING

from qml_nb.errors import JobNotFound
from qml_nb.states import ENQUEUED, PROCESSING
from qml_nb.storage.memory.index import JobIndex
from qml_nb.storage.memory.lanes import Queue
from qml_nb.storage.memory.limits import Limits
from qml_nb.storage.memory.offers import Offer, claim_order, take, take_in_turn
from qml_nb.storage.memory.records import MemoryRecords
from qml_nb.storage.memory.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from threading import Lock

    from qml_nb.config import QueueConfig
    from qml_nb.job import Job


class Queues(MemoryRecords):
    """The verbs of `Backend` that are about queues and locks of jobs. What begins with _ is called under the lock."""

    def __init__(self, lock: Lock) -> None:
        super().__init__(lock)
        self._jobs = JobIndex()
        self._running: dict[str, Job] = {}
        self._queues: dict[str, Queue] = {}
        self._job_locks: dict[str, tuple[str, float]] = {}  # id → (owner, until)
        self._limited: dict[str, Limits] = {}
        """The queues that have bounds. Empty nearly always, so that every verb asks it first and saves the rest."""
        self._waiters = Waiters()
        self._parked = self._waiters.parked

    def _get(self, job_id: str) -> Job | None:
        """Look a job up as it stands now."""
        return self._running.get(job_id) or self._jobs.get(job_id)

    # -- whole queues

    async def pause(self, queue: str) -> bool:
        """See `Backend.pause`."""
        with self._lock:
            found = self._queue(queue)
            was, found.paused = found.paused, True
            return not was

    async def resume(self, queue: str) -> bool:
        """See `Backend.resume`."""
        with self._lock:
            found = self._queues.get(queue)
            if found is None or not found.paused:
                return False
            found.paused = False
            self._offer(found, found.waiting)
            return True

    async def paused(self) -> list[str]:
        """See `Backend.paused`."""
        with self._lock:
            return sorted(queue.name for queue in self._queues.values() if queue.paused)

    async def put_limits(self, queue: str, limits: QueueConfig | None) -> None:
        """See `Backend.put_limits`."""
        with self._lock:
            found = self._queue(queue)
            if limits is None:
                found.limits = None
                self._limited.pop(queue, None)
            else:
                found.limits = self._limited[queue] = Limits(limits)
            self._offer(found, found.waiting)

    async def limits(self) -> dict[str, QueueConfig]:
        """See `Backend.limits`."""
        with self._lock:
            return {queue: limits.config for queue, limits in self._limited.items()}

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        now = time()
        with self._lock:
            firsts = [
                job
                for queue in self._open_queues(queues)
                for job in islice(self._unlocked(queue, now), min(limit, queue.turns(now)))
            ]
        return sorted(firsts, key=claim_order)[:limit]

    # -- locks of jobs

    async def lock_job(self, job_id: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock_job`."""
        now = time() if now is None else now
        with self._lock:
            job = self._get(job_id)
            if job is None:
                raise JobNotFound(job_id)
            leased = job.state is PROCESSING and job.worker_id != owner
            if leased or self._is_locked(job_id, None, now):
                return False
            self._job_locks[job_id] = (owner, now + ttl)
            return True

    async def unlock_job(self, job_id: str, owner: str) -> bool:
        """See `Backend.unlock_job`."""
        with self._lock:
            if self._job_locks.get(job_id, (None,))[0] != owner:
                return False
            del self._job_locks[job_id]
            job = self._get(job_id)
            if job is not None and job.state is ENQUEUED:
                self._offer(self._queues[job.queue], 1)
            return True

    def _is_locked(self, job_id: str, by_others_than: str | None, now: float) -> bool:
        owner, until = self._job_locks.get(job_id, (by_others_than, now))
        return until > now and owner != by_others_than

    def _forget(self, now: float) -> None:
        super()._forget(now)
        for job_id in [job_id for job_id, (_, until) in self._job_locks.items() if until <= now]:
            del self._job_locks[job_id]

    # -- waiting for work

    async def wait(self, queues: Collection[str] | None, timeout: float) -> bool:
        """See `Backend.wait`."""
        end = monotonic() + timeout
        while True:
            with self._lock:
                open_queues, now = self._open_queues(queues), time()
                if any(self._has_work(queue, now) for queue in open_queues):
                    return True
                next_turn = self._next_turn(open_queues, now) if self._limited else inf
                waiter = self._waiters.park(queues, next_turn)
            nap = max(min(end - monotonic(), next_turn - now), 0.0)
            woken = await self._waiters.sleep(waiter, nap, self._lock)
            if woken or monotonic() >= end:
                return woken

    def _offer(self, queue: Queue, many: int) -> None:
        """Wake a waiter for each of so many jobs, as far as the queue gives them now; else let them know when it will.

        What one wakes and leaves behind, `_hand_on` passes to the next.
        """
        if queue.paused:
            return
        if queue.limits is not None:
            many = min(many, queue.waiting, queue.turns(time()))
            if not many and queue.waiting:
                self._waiters.look_again(queue.name, queue.next_turn())
        self._waiters.wake(queue.name, many)

    def _next_turn(self, queues: Iterable[Queue], now: float) -> float:
        """Return the instant at which one of the queues that have none now gives a turn."""
        return min((queue.next_turn() for queue in queues if queue.waiting and not queue.turns(now)), default=inf)

    def _give_turns(self, queue: Queue, many: int) -> None:
        """Note that so many of its jobs run no longer, for which others may."""
        if self._parked and queue.limits is not None:
            self._offer(queue, many)

    def _hand_on(self, queues: Iterable[Queue]) -> None:
        for queue in queues:
            if queue.waiting:
                self._offer(queue, 1)

    # -- what may be handed out

    def _queue(self, name: str) -> Queue:
        """Return the queue, a new one if there is none of that name."""
        queue = self._queues.get(name)
        if queue is None:
            self._queues[name] = queue = Queue(name, self._jobs)
        return queue

    def _open_queues(self, names: Collection[str] | None) -> list[Queue]:
        if names is None:
            return [queue for queue in self._queues.values() if not queue.paused]
        return [queue for name in names if (queue := self._queues.get(name)) is not None and not queue.paused]

    def _has_work(self, queue: Queue, now: float) -> bool:
        return (
            queue.waiting > 0
            and (queue.limits is None or queue.turns(now) > 0)
            and (not self._job_locks or any(True for _ in self._unlocked(queue, now)))
        )

    def _unlocked(self, queue: Queue, now: float) -> Iterator[Job]:
        return (job for job in queue if not self._is_locked(job.id, None, now))

    def _take(self, queues: list[Queue], limit: int, worker: str, in_turn: bool, now: float) -> list[Job]:
        """Take jobs as far as the queues give them, but leave those whose lock somebody else holds in their place."""
        offers = [Offer(queue, lambda job: self._is_locked(job.id, worker, now), now) for queue in queues]
        taken = (take_in_turn if in_turn else take)(offers, limit)
        for offer in offers:
            offer.close(now)
        return taken

    def _count_claimed(self, jobs: list[Job]) -> None:
        """Count jobs that were claimed from several queues."""
        for job in jobs:
            self._queues[job.queue].counts[PROCESSING] += 1
