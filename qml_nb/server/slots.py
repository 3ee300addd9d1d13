"""The slots of a server: each runs one job at a time, as a task of its own, and nothing a job does takes one away."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextvars import copy_context
from functools import partial
from logging import getLogger
from math import inf
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from qml_nb.errors import InvalidValue, JobTimeout, Retry
from qml_nb.job import Outcome
from qml_nb.retry import LONGEST
from qml_nb.server import context
from qml_nb.server.error_text import describe
from qml_nb.server.middleware import through
from qml_nb.server.processes import Processes, UnfitResult
from qml_nb.server.run import NS, Run
from qml_nb.server.threads import Threads
from qml_nb.states import AWAITING_RETRY, ENQUEUED, FAILED, SUCCEEDED
from qml_nb.validate import check_seconds, decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qml_nb.config import ServerConfig
    from qml_nb.job import Job
    from qml_nb.retry import RetryPolicy
    from qml_nb.server.progress import Reports
    from qml_nb.server.registry import Task, WorkerRegistry
    from qml_nb.states import JobState

log = getLogger("qml_nb.server")

TURN = 5_000_000
"""Nanoseconds that slots start jobs in one go before the event loop gets its turn."""
GRACE = 1.0
"""Seconds that a job gets to end after it was cancelled, before its slot is taken back without it."""
PATIENCE = 1.0
"""Seconds without an idle slot after which buffered jobs go back: elsewhere there may be one."""
# An eager task runs at once up to its first real wait, which saves a turn of the loop for each job.
_Task: Any = asyncio.Task
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_runs_here = context.running.set


class Slots:
    """Runs claimed jobs, as many at a time as there are slots. Those that ended, and have an outcome, gather in `ended`.

    `on_end` is called when the first one lies there, `need_more` when nothing is left to start. All of it happens in one
    event loop.
    """

    def __init__(
        self,
        config: ServerConfig,
        registry: WorkerRegistry,
        retry: RetryPolicy,
        reports: Reports,
        on_end: Callable[[], None],
        need_more: Callable[[], None],
    ) -> None:
        self.count = self.idle = config.worker_count
        self.buffer: deque[Job] = deque()
        """Claimed jobs that wait for an idle slot; filled only when it is empty, hence one instant for all of them."""
        self._claimed = self._started = 0
        self.running: set[Run] = set()
        self.ended: list[Run] = []
        self.entering: Run | None = None
        self.turn_began = 0
        self._job_timeout = inf if config.job_timeout is None else config.job_timeout * NS
        self._registry, self._tasks, self._chain, self._retry = registry, registry.tasks, registry.chain, retry
        self._reports, self._on_end, self._need_more = reports, on_end, need_more
        self._threads = Threads(config.server_name)
        self._processes = Processes(config.process_count, reports)
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._context.run(context.reports.set, reports)
        self._filling = False

    @property
    def busy(self) -> int:
        """How many slots run a job."""
        return self.count - self.idle

    def resize(self, count: int) -> None:
        """Change the number of slots; those too many go as their jobs end."""
        self.idle += count - self.count
        self.count = count
        self.fill()

    def offer(self, jobs: Sequence[Job]) -> None:
        """Take claimed jobs: as many start as there are idle slots, the others wait for one."""
        self._claimed = perf_counter_ns()
        self.buffer.extend(jobs)
        self.fill()

    def fill(self) -> None:
        """Start buffered jobs in idle slots, then give the loop its turn."""
        if self._filling:
            return
        self._filling = True
        buffer, claimed, limit = self.buffer, self._claimed, self._job_timeout
        loop, context, run_job = self._loop, self._context, self._run
        now, started, ended, had = 0, self._started, self.ended, len(self.ended)
        while buffer and self.idle > 0:
            started = now or perf_counter_ns()  # a job that ended at once has just read the clock
            if started - self.turn_began > TURN:
                loop.call_soon(self._next_turn)
                break
            job = buffer.popleft()
            timeout = job.timeout
            deadline = started + (limit if timeout is None else timeout * NS)
            self.entering = run = Run(job, claimed, started, deadline)
            # Each job has a fresh copy of the server's context: a variable that one sets, the next doesn't see.
            task = _Task(run_job(run), loop=loop, name=job.method, context=context.copy(), **_EAGER)
            now = run.ended
            if now:
                ended.append(run)
            else:
                self.idle -= 1
                run.task = task
                self.running.add(run)
        if ended and not had:
            self._on_end()
        self.entering = None
        self._started = started
        self._filling = False
        if not buffer:
            self._need_more()

    def _next_turn(self) -> None:
        self.turn_began = perf_counter_ns()
        self.fill()

    async def _run(self, run: Run) -> None:
        job = run.job
        _runs_here(run)
        try:
            run.spec = spec = self._tasks.get(job.method) or self._registry.find(job.method)
            args = decode_json(job.args_json)
            if self._chain:
                plain = spec.is_async and job.kwargs_json == b"{}"
                call = partial(spec.run, *args) if plain else partial(self._call, run, spec, args)
                result = await through(tuple(self._chain), context.JobContext(run, self._reports), call)
            elif spec.is_async and job.kwargs_json == b"{}":
                result = await spec.run(*args)
            else:
                result = await self._call(run, spec, args)
            if result is None and not run.reason:
                outcome: Outcome | None = Outcome(job.id, job.claim_id, SUCCEEDED)
            else:
                outcome = self._returned(run, result)
        except BaseException as error:
            outcome = self._failure(run, error)
        if run is self.entering:  # it has not waited for anything: `fill` goes on from here
            run.ended, run.outcome = perf_counter_ns(), outcome
        elif not run.ended:
            self._end(run, outcome)

    async def _call(self, run: Run, spec: Task, args: list[Any]) -> Any:
        if spec.is_async:
            return await spec.run(*args, **run.job.kwargs)
        if spec.process:
            return await self._processes.run(run, spec)
        return await self._threads.run(self._loop, spec.run, *args, **run.job.kwargs)

    def _returned(self, run: Run, result: Any) -> Outcome | None:
        if run.reason:  # it swallowed its cancellation
            return self._failure(run, asyncio.CancelledError())
        try:
            return _outcome(run.job, SUCCEEDED, result_json=encode_json("result", result))
        except InvalidValue as error:  # it has run, and would return the same again: no retry
            return _outcome(run.job, FAILED, error=describe(error))

    def _failure(self, run: Run, error: BaseException) -> Outcome | None:
        job = run.job
        if run.reason == "lost":
            return None
        if run.reason == "stop":
            return _outcome(job, ENQUEUED)
        if run.reason == "timeout":
            error = JobTimeout(job.id, (run.deadline - run.started) / NS)
        delay = self._retry_delay(run, error)
        if delay is None:
            return _outcome(job, FAILED, error=describe(error))
        return _outcome(job, AWAITING_RETRY, error=describe(error), delay=delay)

    def _retry_delay(self, run: Run, error: BaseException) -> float | None:
        """Return the seconds until the job may run again; None if it may not."""
        job, spec = run.job, run.spec
        if spec is None or job.attempt > job.max_retries or isinstance(error, UnfitResult):
            return None
        policy = job.retry or spec.retry or self._retry
        if isinstance(error, Retry) and error.delay is not None:
            return min(error.delay, LONGEST)
        try:
            gives_up = not isinstance(error, Retry) and policy.gives_up_on(error)
        except Exception:
            gives_up = False
        return None if gives_up else _delay(policy, job)

    def _end(self, run: Run, outcome: Outcome | None) -> None:
        run.ended = perf_counter_ns()
        run.outcome = outcome
        if run.task is not None:
            run.task = None
            self.running.discard(run)
        self.idle += 1
        if outcome is not None:
            if not self.ended:
                self._on_end()
            self.ended.append(run)
        if not self._filling:
            self.fill()

    def check_deadlines(self) -> None:
        """Cancel jobs past their deadline, and take the slot back from those that don't end even so.

        Buffered jobs go back to the storage when no slot has been idle for `PATIENCE` seconds.
        """
        now = perf_counter_ns()
        if self.buffer and max(self._claimed, self._started) + PATIENCE * NS < now:
            self._return_buffer()
        for run in [run for run in self.running if run.deadline < now or run.is_over]:
            if run.is_over or (run.reason and run.deadline + GRACE * NS < now):
                self._give_up(run)
            elif not run.reason:
                run.cancel("timeout")

    def _give_up(self, run: Run) -> None:
        """Go on without a job that does not end. It keeps its lease, unless it had its time: it might still do harm."""
        task = run.task
        told = run.is_over or run.reason == "timeout"
        self._end(run, self._failure(run, asyncio.CancelledError()) if told else None)
        if task is not None:
            task.cancel()

    def drop(self, lost: set[int]) -> None:
        """Cancel and forget the jobs of claims that were lost: somebody else runs them now, or a later claim here."""
        self.buffer = deque(job for job in self.buffer if job.claim_id not in lost)
        for run in [run for run in self.running if run.job.claim_id in lost]:
            run.cancel("lost")

    def hand_back(self) -> None:
        """Start nothing more, and let go back what has not started."""
        self._filling = True  # from now on
        self._return_buffer()

    def _return_buffer(self) -> None:
        buffer, self.buffer = self.buffer, deque()
        if buffer:
            self.ended += [Run(job, 0, 0, inf, outcome=_outcome(job, ENQUEUED)) for job in buffer]
            self._on_end()

    async def wait(self, timeout: float) -> None:
        """Return when all that runs has ended, after `timeout` seconds at the latest."""
        tasks = [run.task for run in self.running if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def end(self) -> int:
        """Cancel what runs, to be handed back, and go on without what does not end even so. Returns how many ran."""
        cut_short = [run for run in self.running if not run.reason]
        for run in cut_short:
            run.cancel("stop")
        await self.wait(GRACE)
        for run in list(self.running):
            self._give_up(run)
        return len(cut_short)

    async def close(self) -> None:
        """Let the threads go, and kill the processes."""
        self._threads.close()
        await self._processes.close()


def _delay(policy: RetryPolicy, job: Job) -> float | None:
    try:
        delay = policy.delay(job.attempt)
        return None if delay is None else check_seconds("delay", delay, above=False)
    except Exception:  # of a policy with a method of its own, which is not to cost a slot
        log.exception("the retry policy of %s failed, and the job is not retried", job.method)
        return None


def _outcome(job: Job, to: JobState, **what: Any) -> Outcome:
    return Outcome(job.id, job.claim_id, to, **what)
