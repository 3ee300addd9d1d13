"""`History`: the samples that the pictures show, as columns of numbers, in a ring of fixed size."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from qml_nb.server.telemetry import PHASES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qml_nb.measure import Sample

POINTS: Final = 150
"""The most points of a curve: about two pixels each in a plot of a quarter of a screen."""
SAMPLE_INTERVAL: Final = 0.1
PLAIN: Final = ("ts", "rate_in", "rate_done", "rate_failed", "depth", "busy", "slots")
_BUSY_SPAN: Final = 5
"""Samples whose mean the column `busy` has, half a second as for rates: slots that took up jobs together also end them
together, and a single look would find all of them idle now and then."""
COLUMNS: Final = {name: place for place, name in enumerate(PLAIN)}
"""Where each plain column stands; three for each phase follow, p50, p95 and p99."""


class History:
    """Keeps the last `window` seconds of samples. `add` and `thinned` may be called from different threads."""

    def __init__(self, window: float) -> None:
        self.window = window
        self._step = max(window / POINTS, SAMPLE_INTERVAL)
        size = max(round(window / SAMPLE_INTERVAL), 2)
        self._rows = np.full((size, len(PLAIN) + 3 * len(PHASES)), np.nan)
        self._count = 0
        self._busy: deque[int] = deque(maxlen=_BUSY_SPAN)
        self._lock = Lock()

    def __len__(self) -> int:
        return min(self._count, len(self._rows))

    def add(self, sample: Sample) -> None:
        """Append a sample; the oldest one goes when the ring is full."""
        self._busy.append(sample.busy)
        row = [getattr(sample, name) for name in PLAIN]
        row[COLUMNS["busy"]] = sum(self._busy) / len(self._busy)
        for phase in PHASES:
            row += sample.latency[phase]
        with self._lock:
            self._rows[self._count % len(self._rows)] = row
            self._count += 1

    def rows(self) -> NDArray[np.float64]:
        """Return all rows, oldest first."""
        with self._lock:
            if self._count <= len(self._rows):
                return self._rows[: self._count].copy()
            oldest = self._count % len(self._rows)
            return np.concatenate([self._rows[oldest:], self._rows[:oldest]])

    def thinned(self) -> NDArray[np.float64]:
        """Return about `POINTS` rows at the most, one a time step, the last one up to now.

        Rates span half a second and latencies a whole one (see `Sample`), so the last of a step of up to half a second
        loses none of them; of the queue's depth, which is true for an instant only, it is the deepest of the step. Steps
        lie at fixed instants: points scroll and don't dance.
        """
        rows = self.rows()
        if not len(rows):
            return rows
        steps = np.floor(rows[:, 0] / self._step)
        first = np.flatnonzero(np.diff(steps, prepend=np.nan) != 0)
        thin: NDArray[np.float64] = rows[np.append(first[1:], len(rows)) - 1]
        depth = COLUMNS["depth"]
        thin[:, depth] = np.maximum.reduceat(rows[:, depth], first)
        return thin


def percentile_columns(phase: str) -> slice:
    """Return where p50, p95 and p99 of a phase stand in a row."""
    first = len(PLAIN) + 3 * PHASES.index(phase)
    return slice(first, first + 3)
