"""Queues with weights: each gets its share, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from itertools import islice, repeat
from random import Random

import pytest

from qml_nb.server.turns import Turns


class Queues:
    """Queues with so many jobs each, that are claimed from in the order that the turns say."""

    def __init__(self, weights: dict[str, float], **jobs: int) -> None:
        self.turns, self.jobs = Turns(weights), Counter(jobs)

    def claim(self, limit: int) -> Counter[str]:
        got: list[str] = []
        for name in self.turns.order():
            taken = min(limit - len(got), self.jobs[name])
            self.jobs[name] -= taken
            got += repeat(name, taken)
        self.turns.gave(limit, got)
        return Counter(got)


ENDLESS = 10**9


@pytest.mark.parametrize("limit", [1, 7, 10, 64])
@pytest.mark.parametrize(
    "weights",
    [{"a": 6, "b": 1}, {"a": 1, "b": 6}, {"a": 5, "b": 3, "c": 2}, {"a": 1, "b": 1}, {"a": 0.001, "b": 0.003}],
)
def test_each_queue_gets_its_share_while_all_have_jobs(weights, limit) -> None:
    queues = Queues(weights, a=ENDLESS, b=ENDLESS, c=ENDLESS)
    got: Counter[str] = Counter()
    for claims in range(1, 501):
        got += queues.claim(limit)
        for name, weight in weights.items():
            assert abs(got[name] - claims * limit * weight / sum(weights.values())) <= 2 * limit


def test_the_share_of_an_idle_queue_goes_to_the_others_by_their_weights() -> None:
    queues = Queues({"a": 6, "b": 3, "c": 1}, b=ENDLESS, c=ENDLESS)
    got = sum((queues.claim(10) for _ in range(400)), Counter())
    assert got["b"] == pytest.approx(3000, rel=0.02)
    assert got["c"] == pytest.approx(1000, rel=0.02)


@pytest.mark.parametrize("idle", ["a", "b"])
def test_a_queue_that_was_idle_gets_its_share_and_has_neither_savings_nor_debts(idle) -> None:
    queues = Queues({"a": 1, "b": 1}, **{name: ENDLESS for name in "ab" if name != idle})
    for _ in range(1000):
        queues.claim(10)
    queues.jobs[idle] = ENDLESS
    got = sum((queues.claim(10) for _ in range(10)), Counter())
    assert 40 <= got[idle] <= 60


def test_a_queue_that_is_nearly_idle_can_not_take_the_share_of_a_busy_one() -> None:
    """It always has a few jobs less than a claim asks for, so that each of its turns finds it empty in the end."""
    queues, got = Queues({"busy": 9, "trickle": 1}, busy=ENDLESS), Counter[str]()
    for _ in range(1000):
        queues.jobs["trickle"] = 9
        got += queues.claim(10)
    assert got["trickle"] == pytest.approx(1000, rel=0.1)


def test_no_queue_starves_whatever_comes_in_and_however_much_is_claimed() -> None:
    random = Random(5)
    queues = Queues({"a": 1000, "b": 10, "c": 1}, c=ENDLESS)
    without: list[int] = [0]
    for _ in range(20_000):
        queues.jobs["a"] += random.choice((0, 0, 5, 40))
        queues.jobs["b"] += random.choice((0, 3, 20))
        without[-1] += (limit := random.randint(1, 20))
        if queues.claim(limit)["c"]:
            without.append(0)
    assert max(without) <= 21 * 1011  # it takes 20 at a time, and waits for 20 shares of the others


def test_a_tiny_weight_is_still_served() -> None:
    queues = Queues({"a": 1e300, "b": 1e-300}, b=5)
    assert queues.claim(10) == {"b": 5}
    queues.jobs.update(a=ENDLESS, b=ENDLESS)
    for _ in range(100):
        queues.claim(10)
    assert sorted(queues.turns.order()) == ["a", "b"]


def test_equal_ones_are_asked_in_the_order_given() -> None:
    turns = Turns({"b": 1, "a": 1, "c": 1})
    assert turns.order() == ["b", "a", "c"]
    turns.gave(1, ["b"])
    assert turns.order() == ["a", "c", "b"]


def test_claims_that_got_nothing_change_nothing() -> None:
    turns = Turns({"a": 2, "b": 1})
    for _ in islice(repeat(None), 10):
        turns.gave(10, [])
    assert turns.order() == ["a", "b"]
