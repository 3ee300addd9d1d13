"""What a server tells about itself: counters, and the phases of each job as sparse, mergeable counts.

A job's time is cut into `queue_wait` (from the instant that it was asked for, or due, until a server claimed it),
`slot_wait` (inside the server, until a slot was idle), `run`, and `settle` (until the storage has written the outcome).
`total` is the sum that a caller feels. Queue wait is on the storage's clock, the rest on the server's.
"""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter_ns
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct, field

from qml_nb.states import ENQUEUED, FAILED, SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.server.run import Run
    from qml_nb.states import JobState

PHASES: Final = ("queue_wait", "slot_wait", "run", "settle", "total")
TICK: Final = 1.024e-6
"""The unit of the histograms in seconds: 2**10 ns, so that a shift makes it."""
SUB_BITS: Final = 7
"""Each power of two is cut into 2**7 steps: values are kept to better than 1 %."""
_EXACT: Final = (1 << (SUB_BITS + 1)) - 1
_SHIFT: Final = SUB_BITS + 1


def bucket(ticks: int) -> int:
    """Return the index of the histogram step that a duration in ticks falls into (as HdrHistogram lays them out).

    >>> [bucket(value) for value in (0, 1, 255, 256, 257, 258)]
    [0, 1, 255, 256, 256, 257]
    """
    power = (ticks | _EXACT).bit_length() - _SHIFT
    return (power << SUB_BITS) + (ticks >> power)


def bucket_middle(index: int) -> float:
    """Return the duration in seconds that stands for a histogram step: its middle.

    >>> [round(bucket_middle(index) / TICK, 1) for index in (0, 1, 255, 256, 257)]
    [0.5, 1.5, 255.5, 257.0, 259.0]
    """
    power = max((index >> SUB_BITS) - 1, 0)
    return (((index - (power << SUB_BITS)) << power) + (1 << power) / 2) * TICK


def _steps(power: int) -> list[int]:
    """Return `bucket` of every duration below 2**power ticks."""
    indexes = range((power - SUB_BITS + 1) << SUB_BITS)
    widths = (1 << max((index >> SUB_BITS) - 1, 0) for index in indexes)
    return [index for index, width in zip(indexes, widths, strict=True) for _ in range(width)]


# Looking a step up costs a third of computing it, and at 200,000 jobs a second with five steps each it shows.
_STEPS: Final = _steps(16)


_KNOWN: Final = len(_STEPS)
# Beyond the table, eight bits further up, the steps repeat.
_FAR: Final = _KNOWN << 8
_UP: Final = 8 << SUB_BITS


OTHER: Final = "other"
"""The queue and the method under which is counted what comes when too many were named."""
MOST_NAMED: Final = 200


# What other processes send must lie within these bounds.
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Name: TypeAlias = Annotated[str, Meta(max_length=512)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e11)]


class TaskCount(Struct, gc=False):
    """What became of the runs of one method in one queue, and how long they ran."""

    queue: Name
    method: Name
    succeeded: Count = 0
    failed: Count = 0
    retried: Count = 0
    ticks: Count = 0

    @property
    def seconds(self) -> float:
        """Seconds of run time, of all of them."""
        return self.ticks * TICK

    def add(self, other: TaskCount) -> None:
        """Count what another one counted."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.retried += other.retried
        self.ticks += other.ticks


class Snapshot(Struct, frozen=True):
    """One server's state at an instant (`ts`, POSIX seconds), and what happened since the last one.

    Counters run from the start of the server; `phases` holds {phase: {bucket: jobs}} of the jobs settled since the
    snapshot before, and `tasks` what became of them by queue and method. Add up those of many servers and of many
    instants as you like. Beyond 200 pairs of queue and method, the others are counted under `OTHER`.
    """

    server_id: Name
    ts: Seconds
    slots: Count
    busy: Count
    buffered: Count
    claimed: Count
    succeeded: Count
    failed: Count
    retried: Count
    handed_back: Count
    refused: Count
    phases: dict[str, dict[int, int]] = field(default_factory=dict)
    tasks: tuple[TaskCount, ...] = ()
    server_name: Name = ""
    queues: tuple[Name, ...] = ()
    """The queues that it serves; none named: all of them."""
    host: Name = ""
    pid: Count = 0
    interval: Seconds = 0.0
    """Seconds until the next one at the most, unless the server is gone or stuck."""
    cut_short: Count = 0
    """Jobs that were cancelled since the server stopped, and their time to end was over."""

    @property
    def finished(self) -> int:
        """Jobs that this server brought to an end, one way or the other."""
        return self.succeeded + self.failed


def task_count(tasks: dict[tuple[str, str], TaskCount], queue: str, method: str, most: int = MOST_NAMED) -> TaskCount:
    """Return the one of the queue and the method; if there are `most` others, the one of all that are named no more."""
    key = queue, method
    if key not in tasks and len(tasks) >= most:
        key = OTHER, OTHER
    if key not in tasks:
        tasks[key] = TaskCount(*key)
    return tasks[key]


class Meter:
    """A server's counters, and its phases since the last snapshot. Used from the server's loop only."""

    def __init__(self) -> None:
        self.claimed = self.succeeded = self.failed = self.retried = self.handed_back = self.refused = 0
        self.cut_short = 0
        self._start_over()

    def _start_over(self) -> None:
        self.queue_wait: defaultdict[int, int] = defaultdict(int)
        self.slot_wait: defaultdict[int, int] = defaultdict(int)
        self.run: defaultdict[int, int] = defaultdict(int)
        self.settle: defaultdict[int, int] = defaultdict(int)
        self.total: defaultdict[int, int] = defaultdict(int)
        self.tasks: dict[tuple[str, str], TaskCount] = {}
        # The newest of each method: a method is seldom in two queues, and a key of two parts costs as much as the rest.
        self._newest: dict[str, TaskCount] = {}

    def count(self, runs: Sequence[Run], answers: Sequence[bool]) -> None:
        """Count ended jobs, now that the storage has answered for each whether its outcome was written."""
        now = perf_counter_ns()
        queue_wait, slot_wait, ran, settle, total = self.queue_wait, self.slot_wait, self.run, self.settle, self.total
        steps, known, far, up, per_second, newest, others = _STEPS, _KNOWN, _FAR, _UP, 1 / TICK, self._newest, 0
        for run, written in zip(runs, answers, strict=True):
            outcome = run.outcome
            if not written or outcome is None:
                self.refused += 1
                others += 1
                continue
            job = run.job
            task = newest.get(job.method)
            if task is None or task.queue != job.queue:
                task = self._task(job.queue, job.method)
            if outcome.to is SUCCEEDED:
                task.succeeded += 1
            else:
                others += 1
                if not self._count_outcome(outcome.to, task):
                    continue
            asked, due = job.created_ts, job.run_ts
            if due is not None and due > asked:
                asked = due
            waited = int(((job.started_ts or asked) - asked) * per_second)
            if waited < 0:  # two clocks are at work, the caller's and the storage's
                waited = 0
            step = steps[waited] if waited < known else steps[waited >> 8] + up if waited < far else bucket(waited)
            queue_wait[step] += 1
            claimed, started, ended = run.claimed, run.started, run.ended
            ticks = (started - claimed) >> 10
            slot_wait[steps[ticks] if ticks < known else bucket(ticks)] += 1
            ticks = (ended - started) >> 10
            task.ticks += ticks
            ran[steps[ticks] if ticks < known else bucket(ticks)] += 1
            ticks = (now - ended) >> 10
            settle[steps[ticks] if ticks < known else bucket(ticks)] += 1
            waited += (now - claimed) >> 10
            step = steps[waited] if waited < known else steps[waited >> 8] + up if waited < far else bucket(waited)
            total[step] += 1
        self.succeeded += len(runs) - others

    def _count_outcome(self, to: JobState, task: TaskCount) -> bool:
        """Count a job that did not succeed. False: it was handed back without having run, and has no phases."""
        if to is ENQUEUED:
            self.handed_back += 1
        elif to is FAILED:
            self.failed += 1
            task.failed += 1
        else:
            self.retried += 1
            task.retried += 1
        return to is not ENQUEUED

    def _task(self, queue: str, method: str) -> TaskCount:
        self._newest[method] = task = task_count(self.tasks, queue, method)
        return task

    def snapshot(self, server_id: str, ts: float, *, slots: int, busy: int, buffered: int, **about: Any) -> Snapshot:
        """Return where the counters stand and the phases since the last call, and start the phases over."""
        phases = {name: dict(getattr(self, name)) for name in PHASES}
        tasks = tuple(self.tasks.values())
        self._start_over()
        return Snapshot(
            server_id,
            ts,
            slots,
            busy,
            buffered,
            self.claimed,
            self.succeeded,
            self.failed,
            self.retried,
            self.handed_back,
            self.refused,
            phases,
            tasks,
            cut_short=self.cut_short,
            **about,
        )
