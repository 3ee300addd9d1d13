"""What the pictures say, in words and numbers: for screen readers, for the table, and for a look from afar."""

from __future__ import annotations

from math import isfinite, isnan
from typing import TYPE_CHECKING, Final

from qml_nb.server.telemetry import PHASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.measure import Sample

PHASE_NAMES: Final = {phase: phase.replace("_", " ") for phase in PHASES}
LATENCY_NAMES: Final = {
    "queue_wait": "Queue wait",
    "slot_wait": "Slot wait",
    "run": "Run time",
    "settle": "Settle time",
    "total": "Total latency",
}
_RISING, _FALLING = 1.25, 0.8


def duration(seconds: float) -> str:
    """Return a duration as people read it: three digits and a unit, an en dash for none.

    >>> [duration(value) for value in (0.0000123, 0.00456, 0.0123, 0.98765, 12.3, float("nan"))]
    ['0.012 ms', '4.56 ms', '12.3 ms', '988 ms', '12.3 s', '–']
    """
    if not isfinite(seconds):
        return "–"
    if seconds >= 0.9995:
        return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:,.0f} s"
    milliseconds = seconds * 1e3
    return f"{milliseconds:.3f} ms" if milliseconds < 1 else f"{milliseconds:.3g} ms"


def milliseconds(seconds: float) -> str:
    """Return a duration in milliseconds, without the unit, for a column of them.

    >>> [milliseconds(value) for value in (0.0000123, 0.00456, 0.0123, 0.98765, 12.3, float("nan"))]
    ['0.01', '4.56', '12.3', '988', '12,300', '–']
    """
    value = seconds * 1e3
    if not isfinite(value):
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def tick(seconds: float) -> str:
    """Return a duration as an axis says it.

    >>> [tick(value) for value in (0.00001, 0.0005, 0.02, 0.5, 10.0)]
    ['0.01 ms', '0.5 ms', '20 ms', '0.5 s', '10 s']
    """
    return f"{seconds:g} s" if seconds >= 0.1 else f"{seconds * 1e3:g} ms"


def number(value: float) -> str:
    """Return a count or a rate: whole, or with one decimal below ten where there is a fraction.

    >>> [number(value) for value in (0, 3, 0.42, 9.96, 1234.5)]
    ['0', '3', '0.4', '10', '1,234']
    """
    return f"{value:.1f}" if 0 < value < 9.95 and value != int(value) else f"{value:,.0f}"


def trend(values: Sequence[float]) -> str:
    """Return whether the newest of some values lies above or below what they were before: their median.

    >>> trend([1.0, 1.0, 1.1]), trend([1.0, 1.0, 2.0]), trend([1.0, 1.0, 0.5]), trend([])
    ('steady', 'rising', 'falling', 'steady')
    """
    known = [value for value in values if not isnan(value)]
    if len(known) < 2:
        return "steady"
    before = sorted(known[:-1])[(len(known) - 1) // 2]
    return "rising" if known[-1] > _RISING * before else "falling" if known[-1] < _FALLING * before else "steady"


def longest_phase(sample: Sample) -> str:
    """Return the phase with the highest p95, apart from the total; "" without jobs."""
    p95 = {phase: sample.latency[phase][1] for phase in PHASES if phase != "total"}
    known = {phase: value for phase, value in p95.items() if not isnan(value)}
    return max(known, key=known.__getitem__) if known else ""


def summary(sample: Sample, before: Sequence[float]) -> str:
    """Return the state of the queue in a sentence or two. `before` has the totals' p95 of the last seconds."""
    if not (sample.rate_in or sample.rate_done or sample.rate_failed or sample.busy):
        return f"Idle; {number(sample.depth)} waiting."
    failed = f", {number(sample.rate_failed)} failed" if sample.rate_failed else ""
    rates = f"{number(sample.rate_in)} jobs/s in, {number(sample.rate_done)} done{failed}"
    p95 = sample.latency["total"][1]
    if isnan(p95):
        return f"{rates}; {number(sample.depth)} waiting."
    phase = PHASE_NAMES[longest_phase(sample)]
    return f"{rates}; {number(sample.depth)} waiting. p95 {duration(p95)}, {trend([*before, p95])}; longest: {phase}."


def latency_table(sample: Sample) -> list[list[str]]:
    """Return a row a phase: its key, its name, and p50, p95 and p99 in milliseconds."""
    return [[phase, PHASE_NAMES[phase], *map(milliseconds, sample.latency[phase])] for phase in PHASES]


def rates_table(sample: Sample, busy: float) -> list[list[str]]:
    """Return name and value of what the other plots show; `busy` slots are those of `History`."""
    return [
        ["in", f"{number(sample.rate_in)} /s"],
        ["done", f"{number(sample.rate_done)} /s"],
        ["failed", f"{number(sample.rate_failed)} /s"],
        ["waiting", number(sample.depth)],
        ["busy slots", f"{number(busy)} of {sample.slots:,}"],
    ]
