"""The memory storage: the contract in its shortest reading, and the fastest of the three. It dies with its process.

One lock guards everything, so any thread may call any verb; no verb but `wait` ever suspends. Jobs are immutable:
a move puts a new object into `_jobs` (of those that run, the current one is in `_running` alone), and whatever else
still points at the old one (a lane, the calendar, the shelf of finished jobs) notices by identity that its entry is
no longer so.
"""

from __future__ import annotations

from bisect import insort
from heapq import nlargest
from itertools import islice
from time import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qml_nb.config import MemoryConfig
from qml_nb.states import ENQUEUED, FAILED, FINAL, PROCESSING, SUCCEEDED, TRANSITIONS, may_run_again
from qml_nb.storage.backend import Swept
from qml_nb.storage.memory.admission import Admission
from qml_nb.storage.memory.moves import changed, moved, reclaimed, settled
from qml_nb.storage.memory.offers import take, take_in_turn
from qml_nb.storage.memory.places import by_end, by_id
from qml_nb.storage.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qml_nb.job import Job, JobFilter, Outcome, Report
    from qml_nb.states import JobState


class MemoryStorage(Storage):
    """A storage in this process's memory: `MemoryStorage()` or `MemoryStorage(max_jobs=10_000)`; see `MemoryConfig`.

    Callable from any thread and any event loop. Nothing outlives the process, and no other process sees it.
    """

    def __init__(self, config: MemoryConfig | None = None, **options: Any) -> None:
        super().__init__(MemoryBackend(MemoryConfig.of(config, options)))


class MemoryBackend(Admission):
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
            in_turn = in_turn and queues is not None
            if self._job_locks or self._limited:
                taken = self._take(open_queues, limit, worker, in_turn, now)
            else:
                taken = (take_in_turn if in_turn else take)(open_queues, limit)
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
                    progress_json=None,
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
            awaited = self._uniques.held or self._watched
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
                if awaited:
                    self._end(done)
                if job.queue != queue:
                    self._count_succeeded(queue, succeeded)
                    queue, succeeded = job.queue, 0
                succeeded += 1
            self._count_succeeded(queue, succeeded)
            self._bound_shelf()
        return written

    def _count_succeeded(self, queue: str, jobs: int) -> None:
        if jobs:
            ran = self._queues[queue]
            ran.counts[PROCESSING] -= jobs
            ran.counts[SUCCEEDED] += jobs
            self._finished += jobs
            self._give_turns(ran, jobs)

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

    async def report(self, reports: Sequence[Report]) -> list[bool]:
        """See `Backend.report`."""
        held: list[bool] = []
        with self._lock:
            for report in reports:
                job = self._running.get(report.job_id)
                holds = job is not None and job.claim_id == report.claim_id
                if job is not None and holds:
                    self._running[job.id] = replace(job, progress_json=report.progress_json)
                    self._tell(job.id)
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
            self._forget(now)
            return Swept(len(due), len(late) - len(lost), len(lost), self._prune(limit, now))

    # -- jobs are looked at, and moved by hand

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """See `Backend.get`."""
        with self._lock:
            return [self._get(job_id) for job_id in ids]

    async def watch(self, ids: Sequence[str], seconds: float) -> list[Job | None]:
        """See `Backend.watch`."""
        until = time() + seconds
        with self._lock:
            jobs = [self._get(job_id) for job_id in ids]
            for job in jobs:
                if job is not None:
                    self._watched[job.id] = max(self._watched.get(job.id, 0.0), until)
        return jobs

    async def find(self, wanted: JobFilter, limit: int, after: str | None = None) -> list[Job]:
        """See `Backend.find`."""
        with self._lock:
            everything, running = list(self._jobs), dict(self._running)  # so that the lock is not held over the search
        current = (running.get(job.id, job) for job in everything if after is None or job.id < after)
        return nlargest(limit, filter(wanted.matches, current), key=by_id)

    async def move(
        self, ids: Sequence[str], to: JobState, expected: Collection[JobState], *, now: float | None = None
    ) -> list[bool]:
        """See `Backend.move`."""
        now = time() if now is None else now
        with self._lock:
            found = [self._get(job_id) for job_id in ids]
            jobs = {job.id: job for job in found if job and job.state in expected and to in TRANSITIONS[job.state]}
            if to not in FINAL:
                self._let_return([job for job in jobs.values() if job.state in FINAL], jobs, now)
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
                    self._put(stored, changed(stored, job))
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
                    self._uniques.erase(job)
                    self._take_out(job)
            return [job is not None for job in found]

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """See `Backend.counts`."""
        with self._lock:
            counts = {(q.name, state): many for q in self._queues.values() for state, many in q.counts.items() if many}
            return counts | {(q.name, ENQUEUED): many for q in self._queues.values() if (many := q.waiting)}
