"""Arrivals: a metronome, or gaps as many independent callers make them; the same for the same seed."""

from itertools import pairwise
from random import Random
from statistics import fmean, stdev

import pytest

from qml_nb import InvalidValue, MemoryStorage
from qml_nb.load import LoadGenerator
from qml_nb.load.arrivals import check_arrivals, gap

BEGIN = 1_000_000.0


def instants(generator, seconds, steps=50):
    """What the generator finds due, however often it looks."""
    generator._due(BEGIN)
    return [due for step in range(1, steps + 1) for due in generator._due(BEGIN + seconds * step / steps)]


def load(**options):
    return LoadGenerator(MemoryStorage(), **options)


def test_constant_arrivals_are_evenly_apart():
    found = instants(load(rate=100), 1.0)
    assert len(found) in (99, 100)
    assert all(later - earlier == pytest.approx(0.01) for earlier, later in pairwise(found))


def test_poisson_gaps_are_exponential_mean_and_spread_alike():
    gaps = [gap("poisson", 50.0, random) for random in [Random(1)] for _ in range(20_000)]
    assert fmean(gaps) == pytest.approx(0.02, rel=0.05)
    assert stdev(gaps) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_the_same_seed_gives_the_same_instants_however_often_one_looks(arrivals):
    options = {"rate": 200, "arrivals": arrivals, "seed": 7}
    assert instants(load(**options), 2.0, steps=50) == instants(load(**options), 2.0, steps=3)


def test_another_seed_gives_other_instants():
    assert instants(load(rate=200, arrivals="poisson", seed=1), 1.0) != instants(
        load(rate=200, arrivals="poisson", seed=2), 1.0
    )


def test_no_instant_lies_in_the_future_or_comes_twice():
    found = instants(load(rate=500, arrivals="poisson"), 1.0)
    assert found == sorted(set(found))
    assert BEGIN < found[0] <= found[-1] <= BEGIN + 1.0


def test_a_sender_that_was_away_still_owes_every_job_with_its_own_instant():
    generator = load(rate=100)
    generator._due(BEGIN)
    owed = generator._due(BEGIN + 5.0)  # asleep for five seconds
    assert len(owed) in (499, 500)
    assert owed[0] == pytest.approx(BEGIN + 0.01)


def test_a_new_rate_counts_from_now():
    generator = load(rate=1)
    generator._due(BEGIN)
    generator.rate = 1_000
    generator._due(BEGIN + 0.5)
    assert len(generator._due(BEGIN + 1.5)) in (999, 1_000)


def test_at_rate_zero_nothing_arrives_but_bursts():
    generator = load(rate=0)
    assert generator._due(BEGIN) == []
    generator.burst(3)
    assert generator._due(BEGIN + 1) == [BEGIN + 1] * 3


@pytest.mark.parametrize("wrong", ["uniform", "", None, 5])
def test_an_unknown_process_is_refused_with_those_there_are(wrong):
    with pytest.raises(InvalidValue, match="constant, poisson"):
        check_arrivals(wrong)
