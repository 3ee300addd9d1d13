"""Figures: what was measured, beside its goal and its raw limit of the same run."""

from __future__ import annotations

import os
import platform
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct, to_builtins

from qml_nb.loops import LOOP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Figure(Struct, frozen=True):
    """One figure. Several runs give their median as `value`, and their spread."""

    what: str
    value: float
    unit: str
    low: float
    high: float
    goal: float | None = None
    at_least: bool = True
    """Whether the goal is a floor; else it is a ceiling."""
    limit: float | None = None
    """The raw limit: the same work without the queue, measured in turn with it."""
    limit_is: str = ""
    share_goal: float | None = None
    """The least share of the raw limit."""

    @property
    def share(self) -> float | None:
        """The value as a share of the raw limit; for a duration, the limit as a share of the value."""
        if not self.limit or not self.value:
            return None
        return self.value / self.limit if self.at_least else self.limit / self.value

    @property
    def reached(self) -> bool | None:
        """Whether the goals are reached; None without a goal."""
        if self.goal is None and self.share_goal is None:
            return None
        met = self.goal is None or (self.value >= self.goal if self.at_least else self.value <= self.goal)
        return met and (self.share_goal is None or (self.share or 0.0) >= self.share_goal)


def figure(
    what: str,
    runs: Sequence[float],
    unit: str,
    *,
    goal: float | None = None,
    at_least: bool = True,
    limits: Sequence[float] = (),
    limit_is: str = "",
    share_goal: float | None = None,
) -> Figure:
    """Make a figure of several runs, and of the runs of its raw limit.

    >>> figure("enqueue", [90.0, 100.0, 110.0], "jobs/s", goal=95, limits=[400.0]).share
    0.25
    """
    limit = median(limits) if limits else None
    return Figure(what, median(runs), unit, min(runs), max(runs), goal, at_least, limit, limit_is, share_goal)


def machine() -> str:
    """Say on what the figures were taken."""
    python = f"Python {platform.python_version()} with {LOOP}"
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {python}"


def as_table(figures: Iterable[Figure]) -> str:
    """Return the figures as an aligned table in Markdown."""
    head = ("what", "measured", "goal", "reached", "low – high", "raw limit", "share")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def as_records(figures: Iterable[Figure]) -> list[dict[str, object]]:
    """Return the figures as plain data, for JSON."""
    return [to_builtins(each) | {"share": each.share, "reached": each.reached} for each in figures]


def _row(one: Figure) -> tuple[str, ...]:
    goals = [f"{'≥' if one.at_least else '≤'} {_number(one.goal)} {one.unit}"] if one.goal is not None else []
    goals += [f"≥ {one.share_goal:g} of limit"] if one.share_goal is not None else []
    reached = {None: "", True: "yes", False: "NO"}[one.reached]
    return (
        one.what,
        f"{_number(one.value)} {one.unit}",
        " and ".join(goals),
        reached,
        f"{_number(one.low)} – {_number(one.high)}",
        f"{_number(one.limit)} {one.unit}: {one.limit_is}" if one.limit is not None else "",
        f"{one.share:.2f}" if one.share is not None else "",
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
