"""Histograms against exact arithmetic: nothing is lost on the way to other tools and back, or when they add up."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from qml_nb.measure import Histogram
from qml_nb.server.telemetry import TICK, bucket, bucket_middle

HIGHEST = bucket(2**40 - 1)
counted = st.dictionaries(st.integers(0, HIGHEST), st.integers(1, 10**6), max_size=40)
percents = st.integers(0, 1000).map(lambda tenths: tenths / 10)


def expanded(buckets: dict[int, int]) -> list[float]:
    return [bucket_middle(step) for step in sorted(buckets) for _ in range(buckets[step])]


@given(st.dictionaries(st.integers(0, HIGHEST), st.integers(1, 30), min_size=1, max_size=40), st.lists(percents))
def test_percentiles_are_the_values_at_their_ranks(buckets, some) -> None:
    some.sort()
    values = expanded(buckets)
    expected = [values[max(ceil(Fraction(str(p)) / 100 * len(values)), 1) - 1] for p in some]
    assert Histogram(buckets).percentiles(*some) == expected


@given(counted)
def test_encoding_and_decoding_change_nothing(buckets) -> None:
    histogram = Histogram(buckets)
    assert Histogram.decode(histogram.encode()) == histogram


@given(counted, counted)
def test_an_encoded_sum_is_the_sum_of_the_encoded(one, other) -> None:
    first, second = HdrHistogram.decode(Histogram(one).encode()), HdrHistogram.decode(Histogram(other).encode())
    first.add(second)
    assert Histogram.decode(first.encode()) == Histogram(one) + Histogram(other)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200))
def test_steps_are_those_of_hdrhistogram(ticks) -> None:
    hdr = HdrHistogram(1, 2**41, 2)
    for value in ticks:
        hdr.record_value(value)
    ours = Histogram({})
    for value in ticks:
        ours.add({bucket(value): 1})
    theirs = {
        bucket(int(item.value_iterated_to)): item.count_added_in_this_iter_step for item in hdr.get_recorded_iterator()
    }
    assert ours.buckets == theirs
    for value in ticks:
        width = hdr.get_highest_equivalent_value(value) - hdr.get_lowest_equivalent_value(value) + 1
        middle = hdr.get_lowest_equivalent_value(value) + width / 2
        assert bucket_middle(bucket(value)) / TICK == pytest.approx(middle)


@given(counted, counted, counted)
def test_sums_are_associative_and_commutative_and_leave_their_parts_alone(one, two, three) -> None:
    a, b, c = Histogram(one), Histogram(two), Histogram(three)
    assert (a + b) + c == a + (b + c) == (c + b) + a
    assert a + Histogram() == a
    assert (a, b, c) == (Histogram(one), Histogram(two), Histogram(three))


@given(st.dictionaries(st.integers(0, HIGHEST), st.integers(0, 3), max_size=5))
def test_steps_that_hold_nothing_count_for_nothing(buckets) -> None:
    histogram, bare = Histogram(buckets), Histogram({step: many for step, many in buckets.items() if many})
    assert histogram == bare
    assert repr(histogram) == repr(bare)
    assert (str(histogram.mean), str(histogram.max)) == (str(bare.mean), str(bare.max))


@given(st.lists(st.floats(0, 10**6), min_size=1, max_size=100))
def test_mean_and_maximum_are_exact_to_the_width_of_a_step(values) -> None:
    histogram = Histogram.of(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values), rel=0.01, abs=2 * TICK)
    assert histogram.max == pytest.approx(max(values), rel=0.01, abs=2 * TICK)


def test_durations_beyond_the_highest_that_others_read_are_kept_at_it() -> None:
    decoded = Histogram.decode(Histogram.of([10.0**9, 1.0]).encode())
    assert decoded.count == 2
    assert decoded.max == pytest.approx(2**40 * TICK, rel=0.01)


def test_a_duration_below_zero_counts_as_none() -> None:
    assert Histogram.of([-5.0]) == Histogram.of([0.0])


def test_it_is_compared_with_its_like_only() -> None:
    assert Histogram() != {}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Histogram())
