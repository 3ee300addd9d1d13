"""Figures judge themselves against goal and limit, and print as a table or as plain data."""

import json

from qml_nb.tuning.figures import as_records, as_table, figure


def test_a_rate_reaches_its_goal_from_above():
    assert figure("rate", [90, 100, 110], "jobs/s", goal=100).reached is True
    assert figure("rate", [90, 99, 110], "jobs/s", goal=100).reached is False


def test_a_duration_reaches_its_goal_from_below():
    assert figure("pause", [9, 10, 11], "ms", goal=10, at_least=False).reached is True
    assert figure("pause", [9, 11, 12], "ms", goal=10, at_least=False).reached is False


def test_a_share_below_its_goal_is_not_reached_whatever_the_rate():
    one = figure("rate", [100], "jobs/s", goal=50, limits=[1_000], share_goal=0.3)
    assert one.share == 0.1
    assert one.reached is False


def test_the_share_of_a_duration_is_the_limit_over_it():
    assert figure("pair", [4.0], "µs", at_least=False, limits=[1.0]).share == 0.25


def test_without_a_goal_nothing_is_reached_or_missed():
    assert figure("rate", [1], "jobs/s").reached is None


def test_the_median_counts_and_the_spread_is_kept():
    one = figure("rate", [1, 100, 3], "jobs/s")
    assert (one.value, one.low, one.high) == (3, 1, 100)


def test_the_table_shows_bad_figures_as_loudly_as_good_ones():
    table = as_table([figure("fast", [200], "jobs/s", goal=100), figure("slow", [50], "jobs/s", goal=100)])
    fast, slow = table.splitlines()[2:]
    assert "| yes " in fast
    assert "| NO " in slow


def test_every_line_of_the_table_is_equally_long():
    table = as_table([figure("a", [1], "s"), figure("something longer", [123456], "jobs/s", goal=1, limits=[2])])
    assert len({len(line) for line in table.splitlines()}) == 1


def test_records_are_plain_data():
    records = as_records([figure("rate", [1.5], "jobs/s", goal=1, limits=[3.0])])
    assert json.loads(json.dumps(records))[0]["share"] == 0.5
