"""Running the jobs of a test: by a real server, here and now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from qml_nb.config import ServerConfig
from qml_nb.errors import JobFailed
from qml_nb.server.context import running
from qml_nb.server.server import BackgroundJobServer
from qml_nb.states import AWAITING_RETRY, ENQUEUED, FAILED, FINAL, PROCESSING, SCHEDULED, SUCCEEDED
from qml_nb.storage import open_storage
from qml_nb.testing.waiting import shown
from qml_nb.validate import check_bool, check_names, check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from qml_nb.job import Job, Outcome
    from qml_nb.retry import RetryPolicy
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.states import JobState
    from qml_nb.storage.storage import Storage

_TIMEOUT = 30.0
_FIRST_LOOK, _LONGEST_LOOK = 0.001, 0.02
_OPTIONS = {"scheduler_poll_interval": 0.01, "shutdown_timeout": 0.1, "telemetry_interval": None}
_SHOWN = 5


class Ended:
    """Jobs that have ended, in that order, as they stood then: iterate over them, or take those that `failed`."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    @property
    def succeeded(self) -> list[Job]:
        """Those that succeeded."""
        return [job for job in self.jobs if job.state is SUCCEEDED]

    @property
    def failed(self) -> list[Job]:
        """Those that failed for good."""
        return [job for job in self.jobs if job.state is FAILED]

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    def __repr__(self) -> str:
        return f"<Ended: {len(self.succeeded)} succeeded, {len(self.failed)} failed>"


async def drain(
    storage: Storage,
    registry: WorkerRegistry,
    *queues: str,
    scheduled: bool = False,
    raising: bool = True,
    timeout: float = _TIMEOUT,
    retry: RetryPolicy | None = None,
    **options: Any,
) -> Ended:
    """Run the jobs that wait in the queues (none named: in all of them), and those that they enqueue, one by one.

    Returns those that have ended when no more wait, in the order in which they ran: by priority, then by age. Paused
    queues stay as they are.

    Args:
        storage: where they wait.
        registry: the tasks.
        queues: see above.
        scheduled: whether to run also what is scheduled, or awaits a retry, without waiting for its time, and to retry
            what fails at once. What awaits a retry before the call has its attempts counted afresh. What the jobs
            themselves schedule stays scheduled.
        raising: whether a job that failed is raised, when all have run; its error is in the notes.
        timeout: the most seconds that this may take.
        retry: as of `BackgroundJobServer`.
        options: of `ServerConfig`; `worker_count=10` runs them side by side.

    Raises:
        JobFailed: a job failed.
        TimeoutError: jobs are left after `timeout` seconds; it says which.
    """
    names = check_names("queues", queues)
    if check_bool("scheduled", scheduled):
        for state in (SCHEDULED, AWAITING_RETRY):
            for queue in names or (None,):
                await storage.requeue_all(state, queue)
    view = _View(storage, at_once=scheduled)
    states = {ENQUEUED, PROCESSING, AWAITING_RETRY} if scheduled else {ENQUEUED, PROCESSING}
    config = ServerConfig("test", queues=names or (), **{"worker_count": 1, "fetch_batch_size": 1} | _OPTIONS | options)
    async with BackgroundJobServer(cast("Storage", view), registry, config, retry=retry):
        await _quiet(storage, view, names, states, check_seconds("timeout", timeout))
    ended = Ended()
    ended.jobs += filter(None, await storage.backend.get(view.ended))
    if raising:
        _raise(ended.failed)
    return ended


@asynccontextmanager
async def inline(
    storage: Storage,
    registry: WorkerRegistry,
    *,
    raising: bool = True,
    timeout: float = _TIMEOUT,
    retry: RetryPolicy | None = None,
    **options: Any,
) -> AsyncIterator[Ended]:
    """Within this block, `storage.enqueue` and `enqueue_many` return when their jobs have ended.

    So have the jobs that these enqueue, though for them `enqueue` returns as ever. What fails is retried at once. Jobs
    that waited before run too. Not so those that are scheduled, or enqueued with `connection=`: for them there is `drain`.
    The block gives all that has ended up to now. A server runs in this event loop, so code that blocks it must not
    enqueue: `qml_nb.testing.sync` has an `inline` for such code.

    Args:
        storage: the very object by which the application enqueues.
        registry: the tasks.
        raising: whether `enqueue` raises if the job, or one that it enqueued, fails for good; its error is in the notes.
        timeout: the most seconds that one call may take.
        retry: as of `BackgroundJobServer`.
        options: of `ServerConfig`.

    Raises:
        JobFailed, TimeoutError: `enqueue` does, see above.
    """
    config = ServerConfig("test", queues=(), **_OPTIONS | options)
    callers = _Callers(storage, raising, check_seconds("timeout", timeout))
    async with BackgroundJobServer(cast("Storage", _View(storage, at_once=True)), registry, config, retry=retry):
        with _replaced(storage, enqueue=callers.enqueue, enqueue_many=callers.enqueue_many):
            yield callers.ended


async def perform(registry: WorkerRegistry, job: Job, *, timeout: float = _TIMEOUT) -> Any:
    """Run one job as a server would, and return its result. It needs no storage; what fails is retried at once.

    Raises:
        JobFailed: it failed; its error is in the notes.
        TimeoutError: it has not ended after `timeout` seconds.
    """
    async with await open_storage("memory://") as storage:
        await storage.enqueue(job)
        return (await drain(storage, registry, scheduled=True, timeout=timeout)).jobs[0].result


class _View:
    """A storage as the server of a test sees it: it keeps the ids of what ended, in that order.

    With `at_once`, what is to be retried is so at once.
    """

    def __init__(self, storage: Storage, *, at_once: bool) -> None:
        self._storage, self._at_once = storage, at_once
        self.ended: list[str] = []
        self.settling, self.settled = 0, 0
        """How many calls of `settle` began, and how many came to an end."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        if self._at_once:
            outcomes = [replace(outcome, delay=0.0) if outcome.delay else outcome for outcome in outcomes]
        self.settling += 1
        try:
            answers = await self._storage.settle(outcomes)
        finally:
            self.settled += 1
        pairs = zip(outcomes, answers, strict=True)
        self.ended += [outcome.job_id for outcome, written in pairs if written and outcome.to in FINAL]
        return answers


class _Callers:
    """Those who enqueue inline, and wait for their jobs."""

    def __init__(self, storage: Storage, raising: bool, timeout: float) -> None:
        self._storage, self._raising, self._timeout = storage, raising, timeout
        self._enqueue, self._enqueue_many = storage.enqueue, storage.enqueue_many
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        self.ended = Ended()

    async def enqueue(self, job: Job, **how: Any) -> bool:
        """Enqueue a job, and return when it has ended."""
        new = await self._enqueue(job, **how)
        if new:
            await self._wait([job.id], how)
        return new

    async def enqueue_many(self, jobs: Iterable[Job], **how: Any) -> int:
        """Enqueue jobs, and return when they have ended."""
        jobs = list(jobs)
        new = await self._enqueue_many(jobs, **how)
        await self._wait([job.id for job in jobs], how)
        return new

    async def _wait(self, ids: list[str], how: dict[str, Any]) -> None:
        parent = running.get(None)
        if parent is not None:  # a job that waited for others might keep them from ever starting
            self._children[parent.job.id] += ids
        elif how.get("connection") is None:
            ended = await self._ended(ids)
            self.ended.jobs += ended
            if self._raising:
                _raise([job for job in ended if job.state is FAILED])

    async def _ended(self, ids: list[str]) -> list[Job]:
        """Return the jobs when they, and those that they enqueued, have ended; what is not stored is left out."""
        ended: list[Job] = []
        pause = _FIRST_LOOK
        async with _limit(self._timeout, lambda: self._left(ids)):
            while True:
                jobs = await self._left(ids)
                done = [job for job in jobs if job.state.is_final]
                ended += done
                ids[:] = [job.id for job in jobs if not job.state.is_final]
                ids += [child for job in done for child in self._children.pop(job.id, ())]
                if not ids:
                    return ended
                await asyncio.sleep(pause)
                pause = _FIRST_LOOK if done else min(pause * 1.5, _LONGEST_LOOK)

    async def _left(self, ids: list[str]) -> list[Job]:
        return [job for job in await self._storage.backend.get(ids) if job is not None]


@contextmanager
def _replaced(storage: Storage, **methods: Callable[..., Any]) -> Iterator[None]:
    """Put other methods in the place of a storage's own; `storage.sync` keeps those that it has seen."""
    before = {name: vars(storage).get(name) for name in methods}
    for name, method in methods.items():
        setattr(storage, name, method)
        vars(storage.sync).pop(name, None)
    try:
        yield
    finally:
        for name, former in before.items():
            vars(storage.sync).pop(name, None)
            delattr(storage, name) if former is None else setattr(storage, name, former)


async def _quiet(
    storage: Storage, view: _View, queues: Sequence[str] | None, states: set[JobState], timeout: float
) -> None:
    """Return when no job is left in these states, nor one that is due by now."""

    async def left() -> list[Job]:
        pages = [await storage.list(state, queue, limit=_SHOWN) for state in states for queue in queues or (None,)]
        return [job for page in pages for job in page]

    async with _limit(timeout, left):
        pause = _FIRST_LOOK
        while True:
            # What was due is enqueued by the sweep, and then counted, unless a job has come to be retried meanwhile.
            before = view.settled
            await storage.sweep()
            if not await _many(storage, queues, states) and view.settling == before:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK)


async def _many(storage: Storage, queues: Sequence[str] | None, states: set[JobState]) -> int:
    paused = await storage.list_paused_queues()
    return sum(
        many
        for (queue, state), many in (await storage.backend.counts()).items()
        if state in states and queue not in paused and (queues is None or queue in queues)
    )


@asynccontextmanager
async def _limit(timeout: float, left: Callable[[], Awaitable[list[Job]]]) -> AsyncIterator[None]:
    """Let the block end in time, or raise an error that shows the jobs that are left."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        jobs = await left()
        lines = [f"\n  {job.state.value}: {shown(job)}" for job in jobs[:_SHOWN]]
        more = f"\n  … and {len(jobs) - _SHOWN} more" if len(jobs) > _SHOWN else ""
        raise TimeoutError(f"jobs have not ended after {timeout:g} s:{''.join(lines)}{more}") from None


def _raise(failed: Sequence[Job]) -> None:
    """Raise the first, with what is known of all of them."""
    if not failed:
        return
    error = JobFailed(failed[0].id, failed[0].state, failed[0].error or "")
    for job in failed:
        error.add_note(f"{shown(job)}, attempt {job.attempt}: {job.error}")
    raise error
