"""`Storage`: the face that users and servers call, over whichever backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from qml_nb.errors import InvalidValue, JobNotFound
from qml_nb.job import (
    AWAITING_RETRY,
    DELETED,
    ENQUEUED,
    FAILED,
    LIVE,
    SCHEDULED,
    SUCCEEDED,
    Job,
    JobFilter,
    JobState,
    Outcome,
)
from qml_nb.storage.batcher import alone
from qml_nb.storage.checks import checked_job, checked_state, new_jobs, not_new, outcome
from qml_nb.storage.closed import Closed, refuse
from qml_nb.storage.records import Records
from qml_nb.storage.sync import SyncStorage
from qml_nb.validate import (
    check_instant,
    check_int,
    check_name,
    check_names,
    check_seconds,
    encode_json,
    posix,
    storable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from types import TracebackType

    from qml_nb.storage.backend import Backend, Swept

# `Storage.list` takes the builtin's name inside the class
_Jobs: TypeAlias = list[Job]
_Answers: TypeAlias = Sequence[bool]
_T = TypeVar("_T")
_One: TypeAlias = Callable[[_T], Awaitable[bool]]

DEFAULT_LEASE = 30.0
"""Seconds that a claim holds when the caller names no other; long enough for a pause, short enough for a crash."""
_FIRST_LOOK, _LOOK_LOCALLY, _LOOK_AFAR = 0.001, 0.004, 0.02  # seconds between two looks of `drained`


class Totals(Struct):
    """How many jobs went through this `Storage` object since it was made."""

    pushed: int = 0
    claimed: int = 0
    settled: int = 0
    refused: int = 0
    """Answers that came after the lease was lost, and were not written."""


class Storage(Records):
    """A queue of jobs. Make one with `open_storage(url)` or as `MemoryStorage()`; it is an async context manager.

    It checks what it is given, gathers single calls into few round trips, keeps `totals`, and passes on to the
    backend, whose contract `qml_nb.storage.backend` states. `storage.sync` is the same face without `await`.
    Where a method takes `now`, that aware datetime stands in for the storage's clock: for tests, which then never sleep.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.totals = Totals()
        self.closed = False
        self.sync = SyncStorage(self)
        self._push_now: Callable[[Job], bool] | None = getattr(backend, "push_now", None)
        self._push_one: _One[Job] = alone(self._push)
        self._settle_one: _One[Outcome] = alone(self._settle)

    # -- jobs come in

    async def enqueue(self, job: Job) -> bool:
        """Store a new job; it is stored (committed) when this returns. False: a job with that id was there before.

        Raises:
            InvalidJob: this is no job, or not a new one.
            CapacityExceeded: the storage is full.
        """
        if job.__class__ is not Job or job.state is not ENQUEUED:
            raise not_new(job)
        if self._push_now is None:
            return await self._push_one(job)
        new = self._push_now(job)
        totals = self.totals  # no call between load and store, so threads don't lose counts under the GIL
        totals.pushed = pushed = totals.pushed + new
        if not pushed & 0x3FF:
            await asyncio.sleep(0)  # memory never suspends: a loop of enqueues would keep the event loop to itself
        return new

    async def enqueue_many(self, jobs: Iterable[Job]) -> int:
        """Store new jobs, in order, all or none. Returns how many; those whose id was there before don't count.

        Raises:
            InvalidJob: one of them is no job, or not a new one.
            CapacityExceeded: they don't all fit.
        """
        new = new_jobs(jobs)
        return sum(await self._push(new)) if new else 0

    async def schedule(
        self, job: Job, *, at: datetime | None = None, delay: float | None = None, now: datetime | None = None
    ) -> bool:
        """Store a new job that waits until `at` (an aware datetime), or for `delay` seconds, before it is enqueued."""
        if job.__class__ is not Job or job.state is not ENQUEUED:
            raise not_new(job)
        if (at is None) == (delay is None):
            raise InvalidValue("at or delay", "to be given, one of the two", (at, delay), "as delay=60.0")
        if at is not None:
            due = check_instant("at", at)
        else:
            due = (time() if now is None else check_instant("now", now)) + check_seconds("delay", delay, above=False)
        return await self._push_one(replace(job, state=SCHEDULED, run_ts=due))

    # -- jobs go out

    async def fetch_and_lock_job(
        self,
        worker: str,
        queues: Iterable[str] | None = None,
        *,
        lease: float = DEFAULT_LEASE,
        now: datetime | None = None,
    ) -> Job | None:
        """Claim the next job for `worker`, hidden from others for `lease` seconds; None if nothing is due.

        Highest priority first, then oldest, over all the `queues` (None: every queue). Settle it with `complete`,
        `fail`, `retry` or `hand_back`; `renew` it before the lease ends, or it runs again elsewhere.
        """
        jobs = await self.fetch_available_jobs_atomic(worker, 1, queues, lease=lease, now=now)
        return jobs[0] if jobs else None

    async def fetch_available_jobs_atomic(
        self,
        worker: str,
        limit: int = 10,
        queues: Iterable[str] | None = None,
        *,
        lease: float = DEFAULT_LEASE,
        now: datetime | None = None,
    ) -> _Jobs:
        """Claim up to `limit` jobs at once, in the order of `fetch_and_lock_job`. No job goes to two workers."""
        return await self.claim(
            check_name("worker", worker),
            check_names("queues", queues),
            check_int("limit", limit, 1),
            check_seconds("lease", lease),
            now=posix(now),
        )

    async def claim(
        self, worker: str, queues: Sequence[str] | None, limit: int, lease: float, *, now: float | None = None
    ) -> _Jobs:
        """Claim jobs as `fetch_available_jobs_atomic` does, for a server, whose arguments were checked once before."""
        jobs = await self.backend.claim(worker, queues, limit, lease, now=now)
        self.totals.claimed += len(jobs)
        return jobs

    async def complete(self, job: Job, result: Any = None, *, now: datetime | None = None) -> bool:
        """Note that a claimed job succeeded. False, and nothing written: its lease was lost."""
        result_json = None if result is None else encode_json("result", result)
        return await self._settle_alone(outcome(job, SUCCEEDED, result_json=result_json), now)

    async def fail(self, job: Job, error: str, *, now: datetime | None = None) -> bool:
        """Note that a claimed job failed for good. False, and nothing written: its lease was lost."""
        return await self._settle_alone(outcome(job, FAILED, error=storable(str(error))), now)

    async def retry(self, job: Job, delay: float = 0.0, error: str = "", *, now: datetime | None = None) -> bool:
        """Let a claimed job run again after `delay` seconds. False, and nothing written: its lease was lost."""
        delay = check_seconds("delay", delay, above=False)
        return await self._settle_alone(
            outcome(job, AWAITING_RETRY, error=storable(str(error)) or None, delay=delay), now
        )

    async def hand_back(self, job: Job, *, now: datetime | None = None) -> bool:
        """Return a claimed job that did not run; the attempt does not count. False: its lease was lost."""
        return await self._settle_alone(outcome(job, ENQUEUED), now)

    async def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> _Answers:
        """Write what became of many claimed jobs at once. False where the lease was lost, and nothing written there."""
        return await self._settle(outcomes, now=posix(now))

    async def renew(
        self, jobs: Job | Sequence[Job], lease: float = DEFAULT_LEASE, *, now: datetime | None = None
    ) -> _Answers:
        """Let the leases of claimed jobs run for `lease` seconds from now. False where the lease was lost."""
        jobs = [jobs] if isinstance(jobs, Job) else jobs
        return await self.backend.renew(jobs, check_seconds("lease", lease), now=posix(now))

    async def sweep(self, limit: int = 1_000, *, now: datetime | None = None) -> Swept:
        """Promote due jobs, reclaim those whose lease ran out, prune expired ones: up to `limit` of each.

        Every server does this all the time; call it where none runs.
        """
        return await self.backend.sweep(check_int("limit", limit, 1), now=posix(now))

    # -- jobs are looked at

    async def get(self, job_id: str) -> Job | None:
        """Return the job as it stands; None if there is none with that id."""
        [job] = await self.backend.get([job_id])
        return job

    async def list(
        self,
        state: JobState | str | None = None,
        queue: str | None = None,
        method: str | None = None,
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> _Jobs:
        """Return jobs, newest first, `limit` a page. For the next page pass the id of the last job as `after`."""
        wanted = JobFilter(None if state is None else checked_state(state), queue, method)
        return await self.backend.find(wanted, check_int("limit", limit, 1), after)

    async def get_job_counts(self, queue: str | None = None) -> dict[JobState, int]:
        """Return how many jobs are stored in each state, exactly, over all queues or in one."""
        counts = dict.fromkeys(JobState, 0)
        for (name, state), many in (await self.backend.counts()).items():
            if queue is None or name == queue:
                counts[state] += many
        return counts

    async def get_queue_counts(self) -> dict[str, dict[JobState, int]]:
        """Return how many jobs are stored, by queue and state, exactly."""
        queues: dict[str, dict[JobState, int]] = {}
        for (name, state), many in sorted((await self.backend.counts()).items()):
            queues.setdefault(name, dict.fromkeys(JobState, 0))[state] = many
        return queues

    async def get_available_jobs(self, limit: int = 10, queues: Iterable[str] | None = None) -> _Jobs:
        """Return the jobs that would be claimed next, in that order, without claiming them."""
        return await self.backend.peek(check_names("queues", queues), check_int("limit", limit, 1))

    # -- jobs are moved by hand

    async def update(self, job: Job) -> Job:
        """Write what `job.replace(…)` changed; state, claim and history stay as stored. Returns the job as stored.

        Raises:
            JobNotFound: no job with that id is stored.
        """
        await self.backend.update([checked_job(job)], None)
        return await self._found(job.id)

    async def update_if_state(self, job: Job, expected: JobState | str) -> bool:
        """Write what `job.replace(…)` changed, if the stored job is in the expected state. False: it is not.

        Raises:
            JobNotFound: no job with that id is stored.
        """
        [written] = await self.backend.update([checked_job(job)], checked_state(expected))
        if not written:
            await self._found(job.id)
        return written

    async def delete(self, job_id: str) -> bool:
        """Remove a job in any state, without a trace; if it runs, its answer is refused. False: no such job."""
        [erased] = await self.backend.erase([job_id])
        return erased

    async def cancel(self, job_id: str, *, now: datetime | None = None) -> bool:
        """Move an unfinished job to deleted, where it is kept for a while. False: it was finished, or there is none.

        A running one loses its lease: its server notices at the next renewal and cancels it.
        """
        [moved] = await self.backend.move([job_id], DELETED, LIVE, now=posix(now))
        return moved

    async def requeue(self, job_id: str, *, now: datetime | None = None) -> bool:
        """Enqueue a failed, a scheduled or a retrying job at once, with its attempts counted afresh. False: not so."""
        [moved] = await self.backend.move([job_id], ENQUEUED, _BY_HAND, now=posix(now))
        return moved

    async def wait(self, queues: Iterable[str] | None = None, timeout: float = 1.0) -> bool:
        """Return True as soon as a job may be there to claim, False after `timeout` seconds."""
        return await self.backend.wait(check_names("queues", queues), check_seconds("timeout", timeout, above=False))

    async def drained(self, *queues: str, timeout: float | None = None) -> None:
        """Return once no unfinished job is left in the queues (none named: in all of them), scheduled ones included.

        Raises:
            TimeoutError: there are some after `timeout` seconds.
        """
        names = check_names("queues", queues)
        end = None if timeout is None else monotonic() + check_seconds("timeout", timeout, above=False)
        pause, longest = _FIRST_LOOK, _LOOK_AFAR if self.backend.round_trip else _LOOK_LOCALLY
        while left := sum(
            many
            for (queue, state), many in (await self.backend.counts()).items()
            if state in LIVE and (names is None or queue in names)
        ):
            if end is not None and monotonic() >= end:
                raise TimeoutError(
                    f"{left} jobs are unfinished after {timeout:g} s in {', '.join(queues) or 'all queues'}"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    # -- the storage itself

    async def migrate(self) -> None:
        """Bring what the storage keeps to the form that this version reads."""
        await self.backend.migrate()

    async def close(self) -> None:
        """Let go of everything. Calls after it raise `StorageClosed`; closing twice does nothing."""
        if not self.closed:
            self.closed = True
            backend, self.backend = self.backend, Closed()
            self._push_one, self._push_now, self._settle_one = refuse, None, refuse
            await backend.close()

    async def __aenter__(self) -> Self:
        await self.backend.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' closed' if self.closed else ''}>"

    async def _settle_alone(self, outcome: Outcome, now: datetime | None) -> bool:
        return await self._settle_one(outcome) if now is None else (await self.settle((outcome,), now=now))[0]

    async def _push(self, jobs: Sequence[Job]) -> _Answers:
        answers = await self.backend.push(jobs)
        stored = sum(answers)
        self.totals.pushed += stored
        return answers

    async def _settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> _Answers:
        answers = await self.backend.settle(outcomes, now=now)
        written = sum(answers)
        refused = len(answers) - written
        self.totals.settled += written
        self.totals.refused += refused
        return answers

    async def _found(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job


_BY_HAND = (FAILED, SCHEDULED, AWAITING_RETRY)
