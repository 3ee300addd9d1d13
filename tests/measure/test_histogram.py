"""Histograms keep durations to better than 1 %, add up, and agree with HdrHistogram."""

from math import isnan

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from qml_nb import InvalidValue
from qml_nb.measure import Histogram
from qml_nb.server.telemetry import TICK, bucket, bucket_middle

durations = st.lists(st.floats(0, 3_600), min_size=1, max_size=200)
counts = st.dictionaries(st.integers(0, 4_000), st.integers(1, 1_000), max_size=30)


@given(st.integers(0, 2**40))
def test_a_step_stands_for_its_durations_to_better_than_one_percent(ticks):
    assert abs(bucket_middle(bucket(ticks)) / TICK - ticks) <= max(1, ticks * 0.01)


@given(durations, st.floats(0, 100))
def test_a_percentile_is_the_exact_one_to_the_width_of_a_step(values, percent):
    [measured] = Histogram.of(values).percentiles(percent)
    rank = max(-(-percent / 100 * len(values) // 1), 1)
    exact = sorted(values)[min(int(rank), len(values)) - 1]
    assert abs(measured - exact) <= exact * 0.01 + 2 * TICK


@given(durations)
def test_percentiles_agree_with_those_of_hdrhistogram(values):
    reference = HdrHistogram(1, 2**40, 2)
    for value in values:
        reference.record_value(max(int(value / TICK), 1))
    for percent, measured in zip((50, 99), Histogram.of(values).percentiles(50, 99), strict=True):
        expected = reference.get_value_at_percentile(percent)
        assert abs(measured / TICK - expected) <= expected * 0.01 + 2


@given(counts, counts, counts)
def test_adding_up_is_associative_and_keeps_every_count(first, second, third):
    a, b, c = Histogram(first), Histogram(second), Histogram(third)
    assert (a + b) + c == a + (b + c)
    assert (a + b).count == a.count + b.count


@given(counts)
def test_what_was_encoded_is_decoded(some):
    assert Histogram.decode(Histogram(some).encode()).count == Histogram(some).count


def test_the_encoded_form_is_read_by_hdrhistogram():
    hdr = HdrHistogram.decode(Histogram.of([0.001] * 10 + [1.0]).encode())
    assert hdr.get_total_count() == 11
    assert hdr.get_value_at_percentile(50) == pytest.approx(0.001 / TICK, rel=0.02)


def test_adding_in_place_is_what_a_snapshot_needs():
    histogram = Histogram()
    histogram.add({5: 2})
    histogram.add({5: 1, 9: 1})
    assert histogram.buckets == {5: 3, 9: 1}


def test_without_durations_there_is_no_percentile_mean_or_maximum():
    empty = Histogram()
    assert all(isnan(value) for value in (*empty.percentiles(50, 99), empty.mean, empty.max))
    assert repr(empty) == "Histogram(empty)"


@pytest.mark.parametrize("percents", [(99, 50), (-1,), (101,)])
def test_percents_that_do_not_ascend_from_0_to_100_are_refused(percents):
    with pytest.raises(InvalidValue, match="percents"):
        Histogram.of([1.0]).percentiles(*percents)


def test_mean_and_maximum_are_those_of_the_durations():
    histogram = Histogram.of([0.1, 0.2, 0.3])
    assert histogram.mean == pytest.approx(0.2, rel=0.01)
    assert histogram.max == pytest.approx(0.3, rel=0.01)
