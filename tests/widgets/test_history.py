"""The ring of samples behind the curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from qml_widgets.history import COLUMNS, POINTS, History, percentile_columns
from qml_widgets.screen import NOTHING

if TYPE_CHECKING:
    from qml_nb.measure import Sample


def sample(ts: float, **changes: object) -> Sample:
    return replace(NOTHING, ts=ts, **changes)


def test_an_empty_history_has_no_rows() -> None:
    assert History(60.0).thinned().shape[0] == 0


def test_rows_are_in_order_before_and_after_the_ring_is_full() -> None:
    history = History(1.0)
    for turn in range(25):
        history.add(sample(turn / 10))
        assert (np.diff(history.rows()[:, 0]) > 0).all()
    assert len(history) == 10
    assert history.rows()[-1, 0] == 2.4


def test_memory_and_points_are_bounded_however_long_it_runs() -> None:
    history = History(60.0)
    for turn in range(3_000):
        history.add(sample(1e9 + turn / 10))
    assert len(history) == 600
    assert len(history.thinned()) <= POINTS + 1


def test_thinning_keeps_the_newest_sample_and_the_deepest_queue() -> None:
    history = History(60.0)
    for turn in range(200):
        history.add(sample(turn / 10, depth=1_000 if turn == 101 else 0, rate_in=float(turn)))
    thin = history.thinned()
    assert thin[-1, COLUMNS["rate_in"]] == 199
    assert thin[:, COLUMNS["depth"]].max() == 1_000
    assert len(thin) < 60


def test_busy_slots_are_the_mean_of_half_a_second() -> None:
    history = History(60.0)
    for turn in range(8):
        history.add(sample(turn / 10, busy=turn))
    assert history.rows()[:, COLUMNS["busy"]].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 5]


def test_points_of_the_past_stay_where_they_are_when_a_sample_is_added() -> None:
    history = History(60.0)
    for turn in range(100):
        history.add(sample(turn / 10))
    before = history.thinned()[:-1, 0]
    history.add(sample(10.0))
    assert history.thinned()[: len(before), 0].tolist() == before.tolist()


def test_percentiles_stand_in_the_columns_of_their_phase() -> None:
    history = History(60.0)
    history.add(sample(1.0, latency={**NOTHING.latency, "run": (0.1, 0.2, 0.3)}))
    assert history.thinned()[0, percentile_columns("run")].tolist() == [0.1, 0.2, 0.3]
    assert np.isnan(history.thinned()[0, percentile_columns("total")]).all()
