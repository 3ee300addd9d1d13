"""`Storage`: the face that users and servers call, over whichever backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import uniform
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from qml_nb.errors import InvalidValue, QueueFull
from qml_nb.job import Job, Outcome
from qml_nb.states import AWAITING_RETRY, ENQUEUED, FAILED, LIVE, SCHEDULED, SUCCEEDED
from qml_nb.storage.batcher import Later, alone
from qml_nb.storage.checks import new_jobs, not_new, outcome
from qml_nb.storage.closed import Closed, refuse
from qml_nb.storage.jobs import Jobs
from qml_nb.storage.records import Records
from qml_nb.storage.results import Results
from qml_nb.storage.schedules import Schedules
from qml_nb.storage.sync import SyncStorage
from qml_nb.validate import (
    check_bool,
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

    from qml_nb.config import QueueConfig
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


class Storage(Jobs, Records, Results, Schedules):
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
        self._ears = {}
        self._push_now: Callable[[Job], bool | None] | None = getattr(backend, "push_now", None)
        self._push_one: _One[Job] = alone(self._push_each)
        self._settle_one: _One[Outcome] = alone(self._settle)
        self._watch_one: Callable[[str], Awaitable[Job | None]] = alone(self._watch)

    # -- jobs come in

    async def enqueue(self, job: Job) -> bool:
        """Store a new job; it is stored (committed) when this returns. False: its id or its unique key was taken before.

        Where its queue is full and says so (`configure_queue`), it waits until there is room.

        Raises:
            InvalidJob: this is no job, or not a new one.
            CapacityExceeded: the storage is full; as QueueFull, its queue is.
        """
        if job.__class__ is not Job or job.state is not ENQUEUED:
            raise not_new(job)
        if self._push_now is None:
            return await self._push_one(job)
        new = self._push_now(job)
        if new is None:
            return await self._push_one(job)
        totals = self.totals  # no call between load and store, so threads don't lose counts under the GIL
        totals.pushed = pushed = totals.pushed + new
        if not pushed & 0x3FF:
            await asyncio.sleep(0)  # memory never suspends: a loop of enqueues would keep the event loop to itself
        return new

    async def enqueue_many(self, jobs: Iterable[Job], *, now: datetime | None = None) -> int:
        """Store new jobs, in order, all or none. Returns how many; those whose id or key was taken before don't count.

        Where a queue is full and says so (`configure_queue`), it waits until there is room for all of them.

        Raises:
            InvalidJob: one of them is no job, or not a new one.
            CapacityExceeded: they don't all fit; as QueueFull, not into a queue.
        """
        new = new_jobs(jobs)
        if not new:
            return 0
        while True:
            try:
                return sum(await self._push(new, now=posix(now)))
            except QueueFull as full:
                config = await self.get_queue_config(full.queue)
                if config.when_full != "block" or full.offered > full.max_waiting:
                    raise
            await asyncio.sleep(_pause_for_room())

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
        job = replace(job, state=SCHEDULED, run_ts=due)
        return await self._push_one(job) if now is None else (await self._push((job,), now=posix(now)))[0]

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
        in_turn: bool = False,
        now: datetime | None = None,
    ) -> _Jobs:
        """Claim up to `limit` jobs at once, in the order of `fetch_and_lock_job`. No job goes to two workers.

        With `in_turn`, all that the first of the `queues` gives comes before the first of the next one.
        """
        return await self.claim(
            check_name("worker", worker),
            check_names("queues", queues),
            check_int("limit", limit, 1),
            check_seconds("lease", lease),
            in_turn=check_bool("in_turn", in_turn),
            now=posix(now),
        )

    async def claim(
        self,
        worker: str,
        queues: Sequence[str] | None,
        limit: int,
        lease: float,
        *,
        in_turn: bool = False,
        now: float | None = None,
    ) -> _Jobs:
        """Claim jobs as `fetch_available_jobs_atomic` does, for a server, whose arguments were checked once before."""
        jobs = await self.backend.claim(worker, queues, limit, lease, in_turn=in_turn, now=now)
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

    # -- work is waited for

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
            self._push_one, self._push_now, self._settle_one, self._watch_one = refuse, None, refuse, refuse
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

    async def _push(self, jobs: Sequence[Job], *, now: float | None = None) -> Sequence[bool]:
        return self._count_pushed(await self.backend.push(jobs, now=now))

    async def _push_each(self, jobs: Sequence[Job]) -> Sequence[bool | Later | Exception]:
        """Store those that find room; the others come again, or are refused, as their queues say."""
        answers = await self.backend.push(jobs, each=True)
        stored = self._count_pushed(answers)
        if None not in answers:
            return stored
        limits = await self.backend.limits()
        return [
            _without_room(job, limits.get(job.queue)) if answer is None else answer
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def _count_pushed(self, answers: Sequence[bool | None]) -> Sequence[bool]:
        self.totals.pushed += sum(filter(None, answers))
        return cast("Sequence[bool]", answers)

    async def _settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> _Answers:
        answers = await self.backend.settle(outcomes, now=now)
        written = sum(answers)
        refused = len(answers) - written
        self.totals.settled += written
        self.totals.refused += refused
        return answers


def _without_room(job: Job, limits: QueueConfig | None) -> Later | Exception:
    if limits is None or limits.max_waiting is None or limits.when_full == "block":
        return Later(_pause_for_room())
    return QueueFull(job.queue, limits.max_waiting)


def _pause_for_room() -> float:
    """Return the seconds until the next look for room: not the same for all who wait for it."""
    return uniform(0.5, 1.5) * _LOOK_AFAR
