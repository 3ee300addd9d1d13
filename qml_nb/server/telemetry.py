"""What a server tells about itself: counters, and the phases of each job as sparse, mergeable counts.

A job's time is cut into `queue_wait` (from the instant that it was asked for, or due, until a server claimed it),
`slot_wait` (inside the server, until a slot was idle), `run`, and `settle` (until the storage has written the outcome).
`total` is the sum that a caller feels. Queue wait is on the storage's clock, the rest on the server's.
"""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from qml_nb.job import ENQUEUED, FAILED, SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.job import JobState
    from qml_nb.server.run import Run

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


class Snapshot(Struct, frozen=True):
    """One server's state at an instant (`ts`, POSIX seconds), and what happened since the last one.

    Counters run from the start of the server; `phases` holds {phase: {bucket: jobs}} of the jobs settled since the
    snapshot before. Add up those of many servers and of many instants as you like.
    """

    server_id: str
    ts: float
    slots: int
    busy: int
    buffered: int
    claimed: int
    succeeded: int
    failed: int
    retried: int
    handed_back: int
    refused: int
    phases: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Jobs that this server brought to an end, one way or the other."""
        return self.succeeded + self.failed


class Meter:
    """A server's counters, and its phases since the last snapshot. Used from the server's loop only."""

    def __init__(self) -> None:
        self.claimed = self.succeeded = self.failed = self.retried = self.handed_back = self.refused = 0
        self._start_over()

    def _start_over(self) -> None:
        self.queue_wait: defaultdict[int, int] = defaultdict(int)
        self.slot_wait: defaultdict[int, int] = defaultdict(int)
        self.run: defaultdict[int, int] = defaultdict(int)
        self.settle: defaultdict[int, int] = defaultdict(int)
        self.total: defaultdict[int, int] = defaultdict(int)

    def count(self, runs: Sequence[Run], answers: Sequence[bool]) -> None:
        """Count ended jobs, now that the storage has answered for each whether its outcome was written."""
        now = perf_counter_ns()
        queue_wait, slot_wait, ran, settle, total = self.queue_wait, self.slot_wait, self.run, self.settle, self.total
        steps, known, far, up, per_second, succeeded = _STEPS, _KNOWN, _FAR, _UP, 1 / TICK, 0
        for run, written in zip(runs, answers, strict=True):
            outcome = run.outcome
            if not written or outcome is None:
                self.refused += 1
                continue
            if outcome.to is SUCCEEDED:
                succeeded += 1
            elif not self._count_outcome(outcome.to):
                continue
            job = run.job
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
            ran[steps[ticks] if ticks < known else bucket(ticks)] += 1
            ticks = (now - ended) >> 10
            settle[steps[ticks] if ticks < known else bucket(ticks)] += 1
            waited += (now - claimed) >> 10
            step = steps[waited] if waited < known else steps[waited >> 8] + up if waited < far else bucket(waited)
            total[step] += 1
        self.succeeded += succeeded

    def _count_outcome(self, to: JobState) -> bool:
        """Count a job that did not succeed. False: it was handed back without having run, and has no phases."""
        if to is ENQUEUED:
            self.handed_back += 1
        elif to is FAILED:
            self.failed += 1
        else:
            self.retried += 1
        return to is not ENQUEUED

    def snapshot(self, server_id: str, ts: float, *, slots: int, busy: int, buffered: int) -> Snapshot:
        """Return where the counters stand and the phases since the last call, and start the phases over."""
        phases = {name: dict(getattr(self, name)) for name in PHASES}
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
        )
