"""`Screen`: turns the monitor's samples into what `Chart` and `Readout` show, no oftener than anybody looks."""

from __future__ import annotations

from math import nan
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from qml_nb import JobState
from qml_nb.measure import Sample
from qml_nb.server.telemetry import PHASES
from qml_widgets.history import COLUMNS, History, percentile_columns
from qml_widgets.words import latency_table, rates_table, summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qml_widgets.chart import Chart
    from qml_widgets.views import Readout

NOTHING: Final = Sample(
    0.0, 0.0, 0.0, 0.0, 0, 0, 0, {state.value: 0 for state in JobState}, dict.fromkeys(PHASES, (nan, nan, nan))
)
"""What a room shows that has not been started yet."""
_STATE_NAMES: Final = {"awaiting_retry": "to retry"}
_QUIET: Final = 10
"""Samples without change after which nothing is going on."""
_SPEAK_EVERY: Final = 20
"""Pictures between two sentences: a screen reader must get to the end of one."""
_TREND: Final = 8


class Audience:
    """Which views of the room there are in pages, and whether anybody can see one.

    >>> audience = Audience()
    >>> audience.watches  # as under papermill: no view will ever be there, but the picture must be
    True
    >>> audience.note("a", False)
    >>> audience.watches
    False
    >>> audience.note("a", None)
    >>> audience.watches
    True
    """

    def __init__(self) -> None:
        self._views: dict[str, bool] = {}
        self._lock = Lock()

    def note(self, view: str, visible: bool | None) -> None:
        """Note whether a view is visible; None: it is gone."""
        with self._lock:
            if visible is None:
                self._views.pop(view, None)
            elif view in self._views or len(self._views) < 1_000:  # a page's ids are input, and memory is bounded
                self._views[view] = visible

    @property
    def is_known(self) -> bool:
        """Whether there is a view at all."""
        return bool(self._views)

    @property
    def watches(self) -> bool:
        """Whether a picture is worth drawing: somebody can see it, or there is no page that could tell."""
        with self._lock:
            return not self._views or any(self._views.values())


class Screen:
    """Paints a picture a sample, while something goes on and somebody watches.

    The last picture of a run is always painted, and written into the widgets' state, which papermill and a saved
    notebook keep. Then the picture stands still until something happens again.
    """

    def __init__(self, chart: Chart, readout: Readout, window: float) -> None:
        self.audience = Audience()
        self._chart, self._readout = chart, readout
        self._history = History(window)
        self._sample = NOTHING
        self._origin = 0.0
        self._phase = "total"
        self._quiet = _QUIET
        self._stale, self._fresh, self._kept, self._moved = False, False, True, False
        self._pictures = 0
        self._sentence = ""

    def note(self, view: str, visible: bool | None) -> None:
        """Note what a view tells, as `Audience.note`; one that comes into sight gets the picture of now."""
        self.audience.note(view, visible)
        if visible:
            self._fresh = True

    def take(self, sample: Sample) -> None:
        """Take a sample, in the monitor's thread."""
        self._origin = self._origin or sample.ts
        self._history.add(sample)
        before, self._sample = self._sample, sample
        if _something_goes_on(before, sample):
            self._quiet, self._stale = 0, True
        else:
            self._quiet += 1

    @property
    def rests(self) -> bool:
        """Whether nothing has gone on for a second."""
        return self._quiet >= _QUIET

    def draw(self, phase: str) -> None:
        """Draw what is new, in the refresher's thread."""
        if (self._stale or self._fresh or phase != self._phase) and (self.audience.watches or self.rests):
            fresh, self._stale, self._fresh, self._kept = self._fresh, False, False, False
            self._paint(self._sample, phase, whole=fresh)
        if not self._kept and (self.rests or not self.audience.is_known):
            self._kept = True
            self._chart.keep()

    def _paint(self, sample: Sample, phase: str, *, whole: bool) -> None:
        rows, page = self._history.thinned(), self.audience.is_known
        self._chart.show(rows, phase, self._origin, sample.changed_ts, page=page and not whole)
        if page and whole:
            self._chart.tell()
        moved, self._moved = self._moved, _moves(sample)
        if self._pictures % _SPEAK_EVERY == 0 or not (moved and self._moved):  # at once when it begins or ends
            self._sentence = _sentence(sample, rows)
        busy = float(rows[-1, COLUMNS["busy"]]) if len(rows) else 0.0
        self._readout.facts = numbers(sample, busy, phase, self._sentence)
        self._pictures += 1
        self._phase = phase


def numbers(sample: Sample, busy: float, phase: str, sentence: str) -> dict[str, Any]:
    """Return what `Readout` shows of a sample."""
    return {
        "counts": [[_STATE_NAMES.get(state, state), f"{many:,}"] for state, many in sample.counts.items()],
        "rates": rates_table(sample, busy),
        "latency": latency_table(sample),
        "phase": phase,
        "summary": sentence,
    }


def _sentence(sample: Sample, rows: NDArray[np.float64]) -> str:
    if sample is NOTHING:
        return ""
    p95 = percentile_columns("total").start + 1
    return summary(sample, [float(value) for value in rows[-_TREND:-1, p95]])


def _something_goes_on(before: Sample, now: Sample) -> bool:
    """Whether jobs come or go, or anything else than the time has changed."""
    return _moves(now) or _still(before) != _still(now)


def _moves(sample: Sample) -> bool:
    return bool(sample.rate_in or sample.rate_done or sample.rate_failed or sample.busy)


def _still(sample: Sample) -> tuple[Any, ...]:
    rates = sample.rate_in, sample.rate_done, sample.rate_failed
    return (*rates, sample.depth, sample.busy, sample.slots, sample.counts)
