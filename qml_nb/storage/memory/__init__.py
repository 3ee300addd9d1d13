"""The memory storage: the contract in its shortest reading, and the fastest of the three. It dies with its process.

One lock guards everything, so any thread may call any verb; no verb but `wait` ever suspends. Jobs are immutable:
a move puts a new object into `_jobs` (of those that run, the current one is in `_running` alone), and whatever else
still points at the old one (a lane, the calendar, the shelf of finished jobs) notices by identity that its entry is
no longer so.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from heapq import nlargest
from itertools import islice
from time import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qml_nb.config import MemoryConfig
from qml_nb.errors import CapacityExceeded
from qml_nb.job import CHANGEABLE, ENQUEUED, FAILED, FINAL, PROCESSING, SUCCEEDED, TRANSITIONS, may_run_again
from qml_nb.storage.backend import Swept
from qml_nb.storage.memory.index import PART
from qml_nb.storage.memory.moves import moved, reclaimed, settled
from qml_nb.storage.memory.places import Places, by_end, by_id, claim_order, take
from qml_nb.storage.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from qml_nb.job import Job, JobFilter, JobState, Outcome
    from qml_nb.storage.memory.lanes import Queue


class MemoryStorage(Storage):
    """A storage in this process's memory: `MemoryStorage()` or `MemoryStorage(max_jobs=10_000)`; see `MemoryConfig`.

    Callable from any thread and any event loop. Nothing outlives the process, and no other process sees it.
    """

    def __init__(self, config: MemoryConfig | None = None, **options: Any) -> None:
        super().__init__(MemoryBackend(MemoryConfig.of(config, options)))


class MemoryBackend(Places):
    """The verbs of `Backend` on dicts, deques and one lock."""

    name = "memory"
    round_trip = False

    async def open(self) -> None:
        """Nothing to connect."""

    async def migrate(self) -> None:
        """Nothing to migrate."""

    async def close(self) -> None:
        """Wake whoever waits, and end the subscriptions."""
        with self._lock:
            self._waiters.wake_all()
            self._end_subscriptions()

    # -- jobs come in, are claimed, and end

    async def push(self, jobs: Sequence[Job], *, each: bool = False, now: float | None = None) -> Sequence[bool | None]:
        """See `Backend.push`."""
        with self._lock:
            self._make_room(jobs)
            new = [self._admit(job) for job in jobs]
            if self._parked:
                self._wake(jobs)
        return new

    def push_now(self, job: Job) -> bool:
        """See `LocalBackend.push_now`."""
        index = self._jobs
        with self._lock:
            newest = len(index.newest)
            if newest > PART or index.older + newest >= self._max_jobs:
                self._make_room((job,))
            new = self._admit(job)
            if self._parked:
                self._waiters.wake(job.queue, 1)
            return new

    async def claim(
        self,
        worker: str,
        queues: Collection[str] | None,
        limit: int,
        lease: float,
        *,
        in_turn: bool = False,
        now: float | None = None,
    ) -> list[Job]:
        """See `Backend.claim`."""
        now = time() if now is None else now
        until = now + lease
        claimed: list[Job] = []
        with self._lock:
            open_queues = self._open_queues(queues)
            if self._job_locks:
                taken = self._take_unlocked(open_queues, limit, worker, now)
            else:
                taken = take(open_queues, limit)
            next_claim = self._next_claim
            for job in taken:
                mine = replace(
                    job,
                    state=PROCESSING,
                    attempt=job.attempt + 1,
                    worker_id=worker,
                    lease_ts=until,
                    started_ts=now,
                    claim_id=next_claim(),
                )
                self._running[job.id] = mine
                claimed.append(mine)
            if len(open_queues) == 1:
                open_queues[0].counts[PROCESSING] += len(claimed)
            else:
                self._count_claimed(claimed)
            if self._parked and claimed:
                self._hand_on(open_queues)
        return claimed

    async def settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> list[bool]:
        """See `Backend.settle`."""
        now = time() if now is None else now
        kept_until = self._expiry(SUCCEEDED, now)
        written: list[bool] = []
        queue, succeeded = "", 0
        with self._lock:
            running, index, shelf = self._running, self._jobs, self._shelf[SUCCEEDED]
            for outcome in outcomes:
                job = running.get(outcome.job_id)
                if job is None or job.claim_id != outcome.claim_id:
                    written.append(False)
                    continue
                written.append(True)
                if outcome.to is not SUCCEEDED:
                    self._put(job, settled(job, outcome, now, self._expiry(outcome.to, now)))
                    continue
                # What `_put` would do, in line: nearly all jobs come to this end.
                job_id = job.id
                del running[job_id]
                (index.newest if job_id >= index.bound else index.part(job_id))[job_id] = done = replace(
                    job,
                    state=SUCCEEDED,
                    lease_ts=None,
                    finished_ts=now,
                    result_json=outcome.result_json,
                    error=None,
                    expires_ts=kept_until,
                )
                shelf.append(done)
                if job.queue != queue:
                    self._count_succeeded(queue, succeeded)
                    queue, succeeded = job.queue, 0
                succeeded += 1
            self._count_succeeded(queue, succeeded)
            self._bound_shelf()
        return written

    def _count_succeeded(self, queue: str, jobs: int) -> None:
        if jobs:
            counts = self._queues[queue].counts
            counts[PROCESSING] -= jobs
            counts[SUCCEEDED] += jobs
            self._finished += jobs

    async def renew(self, jobs: Sequence[Job], lease: float, *, now: float | None = None) -> list[bool]:
        """See `Backend.renew`."""
        until = (time() if now is None else now) + lease
        held: list[bool] = []
        with self._lock:
            for claim in jobs:
                job = self._running.get(claim.id)
                holds = job is not None and job.claim_id == claim.claim_id
                if job is not None and holds:
                    self._running[job.id] = replace(job, lease_ts=until)
                held.append(holds)
        return held

    async def sweep(self, limit: int, *, now: float | None = None) -> Swept:
        """See `Backend.sweep`."""
        now = time() if now is None else now
        with self._lock:
            due = list(islice(self._pop_due(now), limit))
            for job in due:
                self._put(job, replace(job, state=ENQUEUED))
            # `_running` holds no more than the slots of all servers: a scan is cheaper than a heap kept in order.
            late = [job for job in self._running.values() if (job.lease_ts or now) <= now][:limit]
            lost = [job for job in late if not may_run_again(job.attempt, job.max_retries)]
            for job in late:
                again = may_run_again(job.attempt, job.max_retries)
                self._put(job, reclaimed(job, again, now, self._expiry(FAILED, now)))
            self._bound_shelf()
            self._drop_stale_locks(now)
            return Swept(len(due), len(late) - len(lost), len(lost), self._prune(limit, now))

    # -- jobs are looked at, and moved by hand

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """See `Backend.get`."""
        with self._lock:
            return [self._get(job_id) for job_id in ids]

    async def find(self, wanted: JobFilter, limit: int, after: str | None = None) -> list[Job]:
        """See `Backend.find`."""
        with self._lock:
            everything, running = list(self._jobs), dict(self._running)  # so that the lock is not held over the search
        current = (running.get(job.id, job) for job in everything if after is None or job.id < after)
        return nlargest(limit, filter(wanted.matches, current), key=by_id)

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        with self._lock:
            firsts = [job for queue in self._open_queues(queues) for job in islice(self._unlocked(queue), limit)]
        return sorted(firsts, key=claim_order)[:limit]

    async def move(
        self, ids: Sequence[str], to: JobState, expected: Collection[JobState], *, now: float | None = None
    ) -> list[bool]:
        """See `Backend.move`."""
        now = time() if now is None else now
        with self._lock:
            found = [self._get(job_id) for job_id in ids]
            jobs = {job.id: job for job in found if job and job.state in expected and to in TRANSITIONS[job.state]}
            returning = 0 if to in FINAL else sum(job.state in FINAL for job in jobs.values())
            if returning and self._live + returning > self._max_jobs:
                raise CapacityExceeded(self._max_jobs, self._live, returning)
            for job in jobs.values():
                self._put(job, moved(job, to, now, self._expiry(to, now)))
            self._bound_shelf()
            return [job is not None and job.id in jobs for job in found]

    async def update(self, jobs: Sequence[Job], expected: JobState | None) -> list[bool]:
        """See `Backend.update`."""
        written: list[bool] = []
        with self._lock:
            for job in jobs:
                stored = self._get(job.id)
                fits = stored is not None and (expected is None or stored.state == expected)
                if stored is not None and fits:
                    self._put(stored, replace(stored, **{name: getattr(job, name) for name in CHANGEABLE.values()}))
                    if stored.state in FINAL:
                        shelf = self._shelf[stored.state]
                        insort(shelf, shelf.pop(), key=by_end)
                written.append(fits)
        return written

    async def erase(self, ids: Sequence[str]) -> list[bool]:
        """See `Backend.erase`."""
        with self._lock:
            found = [self._get(job_id) for job_id in ids]
            for job in found:
                if job is not None and job.id in self._jobs:
                    self._take_out(job)
            return [job is not None for job in found]

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """See `Backend.counts`."""
        with self._lock:
            counts = {(q.name, state): many for q in self._queues.values() for state, many in q.counts.items() if many}
            return counts | {(q.name, ENQUEUED): many for q in self._queues.values() if (many := q.waiting)}

    # -- waiting for work

    async def wait(self, queues: Collection[str] | None, timeout: float) -> bool:
        """See `Backend.wait`."""
        with self._lock:
            if any(self._has_work(queue) for queue in self._open_queues(queues)):
                return True
            waiter = self._waiters.park(queues)
        return await self._waiters.sleep(waiter, timeout, self._lock)

    def _wake(self, jobs: Sequence[Job]) -> None:
        """Wake a waiter for each job that came; what one wakes and leaves behind, `_hand_on` passes to the next."""
        if len(jobs) == 1:
            self._waiters.wake(jobs[0].queue, 1)
        else:
            for queue, many in Counter(job.queue for job in jobs).items():
                self._waiters.wake(queue, many)

    def _hand_on(self, queues: Iterable[Queue]) -> None:
        for queue in queues:
            if queue.waiting:
                self._waiters.wake(queue.name, 1)
