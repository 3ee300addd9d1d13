"""The memory storage: the contract in its shortest reading, and the fastest of the three. It dies with its process.

One lock guards everything, so any thread may call any verb; no verb but `wait` ever suspends. Jobs are immutable:
a move puts a new object into `_jobs` (of those that run, the current one is in `_running` alone), and whatever else still points at the old one (a lane, the calendar, the shelf
of finished jobs) notices by identity that its entry is no longer so.
"""

from __future__ import annotations

import sys
from bisect import insort
from collections import Counter, deque
from heapq import heapify, heappop, heappush, heapreplace, nlargest
from itertools import count, islice
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qml_nb.config import MemoryConfig
from qml_nb.errors import CapacityExceeded
from qml_nb.job import (
    AWAITING_RETRY,
    CHANGEABLE,
    ENQUEUED,
    FAILED,
    FINAL,
    LOST_LEASE,
    PROCESSING,
    SCHEDULED,
    SUCCEEDED,
    TRANSITIONS,
    may_run_again,
)
from qml_nb.storage.backend import Swept
from qml_nb.storage.memory.index import PART
from qml_nb.storage.memory.lanes import Queue
from qml_nb.storage.memory.records import MemoryRecords
from qml_nb.storage.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from qml_nb.job import Job, JobFilter, JobState, Outcome

_tie = count()  # jobs have no order of their own, and two may be due at one instant
_DEAD_KEPT = 1_000


class MemoryStorage(Storage):
    """A storage in this process's memory: `MemoryStorage()` or `MemoryStorage(max_jobs=10_000)`; see `MemoryConfig`.

    Callable from any thread and any event loop. Nothing outlives the process, and no other process sees it.
    """

    def __init__(self, config: MemoryConfig | None = None, **options: Any) -> None:
        super().__init__(MemoryBackend(MemoryConfig.of(config, options)))


class MemoryBackend(MemoryRecords):
    """The verbs of `Backend` on dicts, deques and one lock."""

    name = "memory"
    round_trip = False

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(Lock())
        self.config = config
        self._calendar: list[tuple[float, int, Job]] = []  # scheduled and retried jobs by due time
        self._shelf: dict[JobState, deque[Job]] = {state: deque() for state in FINAL}  # finished jobs by age
        self._finished = 0
        self._max_jobs = sys.maxsize if config.max_jobs is None else config.max_jobs
        self._parked = self._waiters.parked

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

    async def push(self, jobs: Sequence[Job]) -> list[bool]:
        """See `Backend.push`."""
        index, queues = self._jobs, self._queues
        new: list[bool] = []
        with self._lock:
            if index.count + len(jobs) > self._max_jobs:
                self._check_room(jobs)
            for job in jobs:
                job_id = job.id
                part = index.newest if job_id >= index.bound else index.part(job_id)
                if job_id in part:
                    new.append(False)
                    continue
                new.append(True)
                part[job_id] = job
                index.count += 1
                try:
                    queue = queues[job.queue]
                except KeyError:
                    queue = self._add_queue(job.queue)
                if job.state is ENQUEUED and not queue.dead:
                    queue.push(job)
                else:
                    self._place(job, queue)
            if len(index.newest) > PART:
                index.begin_part()
            if self._parked:
                self._wake(jobs)
        return new

    async def claim(
        self, worker: str, queues: Collection[str] | None, limit: int, lease: float, *, now: float | None = None
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
                taken = _take(open_queues, limit)
            for job in taken:
                mine = replace(
                    job,
                    state=PROCESSING,
                    attempt=job.attempt + 1,
                    worker_id=worker,
                    lease_ts=until,
                    started_ts=now,
                )
                self._running[job.id] = mine
                self._queues[job.queue].counts[PROCESSING] += 1
                claimed.append(mine)
            if self._parked and claimed:
                self._hand_on(open_queues)
        return claimed

    async def settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> list[bool]:
        """See `Backend.settle`."""
        now = time() if now is None else now
        kept_until = self._expiry(SUCCEEDED, now)
        written: list[bool] = []
        with self._lock:
            running = self._running
            for outcome in outcomes:
                job = running.get(outcome.job_id)
                if job is None or job.attempt != outcome.attempt or job.worker_id != outcome.worker_id:
                    written.append(False)
                    continue
                written.append(True)
                if outcome.to is SUCCEEDED:
                    self._put(job, _succeeded(job, outcome.result_json, now, kept_until))
                else:
                    self._put(job, _settled(job, outcome, now, self._expiry(outcome.to, now)))
            self._bound_shelf()
        return written

    async def renew(self, jobs: Sequence[Job], lease: float, *, now: float | None = None) -> list[bool]:
        """See `Backend.renew`."""
        until = (time() if now is None else now) + lease
        held: list[bool] = []
        with self._lock:
            for claim in jobs:
                job = self._running.get(claim.id)
                holds = job is not None and job.worker_id == claim.worker_id and job.attempt == claim.attempt
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
                self._put(job, _reclaimed(job, again, now, self._expiry(FAILED, now)))
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
        return nlargest(limit, filter(wanted.matches, current), key=_by_id)

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        with self._lock:
            firsts = [job for queue in self._open_queues(queues) for job in islice(self._unlocked(queue), limit)]
        return sorted(firsts, key=_claim_order)[:limit]

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
                self._put(job, _moved(job, to, now, self._expiry(to, now)))
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
                        insort(shelf, shelf.pop(), key=_by_end)
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

    # -- under the lock: where a job lies

    @property
    def _live(self) -> int:
        return self._jobs.count - self._finished

    def _check_room(self, jobs: Sequence[Job]) -> None:
        """Refuse a batch that doesn't fit; ids that are there already take no room, and finished jobs neither."""
        new = len({job.id for job in jobs if job.id not in self._jobs})
        if new and self._live + new > self._max_jobs:
            raise CapacityExceeded(self._max_jobs, self._live, new)

    def _add_queue(self, name: str) -> Queue:
        self._queues[name] = queue = Queue(name, self._jobs)
        return queue

    def _open_queues(self, names: Collection[str] | None) -> list[Queue]:
        if names is None:
            return [queue for queue in self._queues.values() if not queue.paused]
        found = [self._queues.get(name) for name in names]
        return [queue for queue in found if queue is not None and not queue.paused]

    def _has_work(self, queue: Queue) -> bool:
        return bool(queue.waiting) and (not self._job_locks or any(True for _ in self._unlocked(queue)))

    def _unlocked(self, queue: Queue) -> Iterator[Job]:
        now = time()
        return (job for job in queue if not self._is_locked(job.id, None, now))

    def _take_unlocked(self, queues: list[Queue], limit: int, worker: str, now: float) -> list[Job]:
        """Take jobs, but leave those whose lock somebody else holds in their place."""
        free: list[Job] = []
        locked: list[Job] = []
        while len(free) < limit and (taken := _take(queues, limit - len(free))):
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
            self._take_out(min(heads, key=_by_end))

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
        for state, shelf in self._shelf.items():
            if len(shelf) > _DEAD_KEPT + 2 * self._finished:
                self._shelf[state] = deque(job for job in shelf if jobs.get(job.id) is job)


def _take(queues: list[Queue], limit: int) -> list[Job]:
    """Take jobs in order over all the queues."""
    if len(queues) == 1:
        return queues[0].take(limit)
    heads = [(*_claim_order(head), queue) for queue in queues if (head := queue.head())]
    heapify(heads)
    taken: list[Job] = []
    while heads and len(taken) < limit:
        queue = heads[0][2]
        taken += queue.take(1)
        if head := queue.head():
            heapreplace(heads, (*_claim_order(head), queue))
        else:
            heappop(heads)
    return taken


def _settled(job: Job, outcome: Outcome, now: float, expires: float | None) -> Job:
    if outcome.to is AWAITING_RETRY:
        due = now + outcome.delay
        return replace(job, state=AWAITING_RETRY, lease_ts=None, worker_id=None, run_ts=due, error=outcome.error)
    if outcome.to is ENQUEUED:  # handed back without having run
        return replace(job, state=ENQUEUED, lease_ts=None, worker_id=None, started_ts=None, attempt=job.attempt - 1)
    return replace(job, state=FAILED, lease_ts=None, finished_ts=now, error=outcome.error, expires_ts=expires)


def _succeeded(job: Job, result_json: bytes | None, now: float, expires: float | None) -> Job:
    return replace(
        job, state=SUCCEEDED, lease_ts=None, finished_ts=now, result_json=result_json, error=None, expires_ts=expires
    )


def _reclaimed(job: Job, again: bool, now: float, expires: float | None) -> Job:
    if again:
        return replace(job, state=ENQUEUED, lease_ts=None, worker_id=None)
    return replace(job, state=FAILED, lease_ts=None, finished_ts=now, error=LOST_LEASE, expires_ts=expires)


def _moved(job: Job, to: JobState, now: float, expires: float | None) -> Job:
    if to in FINAL:
        return replace(job, state=to, lease_ts=None, finished_ts=now, expires_ts=expires)
    clean = {"worker_id": None, "started_ts": None, "finished_ts": None, "result_json": None, "expires_ts": None}
    return replace(job, state=to, attempt=0, run_ts=now, error=None, **clean)


def _claim_order(job: Job) -> tuple[int, str]:
    return -job.priority, job.id


def _by_id(job: Job) -> str:
    return job.id


def _by_end(job: Job) -> float:
    return job.finished_ts or 0.0
