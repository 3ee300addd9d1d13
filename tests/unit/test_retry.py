"""Delays: pure functions of the attempt, bounded whatever the factors come to."""

import pickle
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_nb.errors import InvalidValue, RemoteError
from qml_nb.retry import LONGEST, RetryPolicy, kinds_of

seconds = st.floats(0, 1e6)
attempts = st.integers(1, 2**31 - 1)
shares = st.floats(0, 1)
policies = st.one_of(
    st.builds(RetryPolicy.fixed, seconds, jitter=shares),
    st.builds(RetryPolicy.linear, seconds, seconds, cap=seconds, jitter=shares),
    st.builds(RetryPolicy.exponential, seconds, st.floats(0, 100) | st.integers(0, 100), cap=seconds, jitter=shares),
)


@given(policies, attempts, st.integers())
def test_a_delay_lies_within_its_jitter_of_zero_to_the_cap(policy: RetryPolicy, attempt: int, seed: int) -> None:
    delay = policy.delay(attempt, Random(seed))

    assert delay is not None
    assert 0 <= delay <= min(policy.cap, LONGEST) * (1 + policy.jitter) * 1.000001


@given(policies, attempts, st.integers())
def test_one_seed_gives_one_delay(policy: RetryPolicy, attempt: int, seed: int) -> None:
    assert policy.delay(attempt, Random(seed)) == policy.delay(attempt, Random(seed))


@given(seconds, st.floats(1, 100), seconds, st.lists(attempts, min_size=2))
def test_without_jitter_later_attempts_never_wait_less(
    initial: float, factor: float, cap: float, many: list[int]
) -> None:
    for policy in (
        RetryPolicy.linear(initial, factor, cap=cap, jitter=0),
        RetryPolicy.exponential(initial, factor, cap=cap, jitter=0),
    ):
        delays = [policy.delay(attempt) or 0.0 for attempt in sorted(many)]
        assert delays == sorted(delays)


@given(seconds, attempts)
def test_fixed_waits_as_long_each_time(delay: float, attempt: int) -> None:
    assert RetryPolicy.fixed(delay).delay(attempt) == delay


@given(attempts)
def test_none_never_retries(attempt: int) -> None:
    assert RetryPolicy.none().delay(attempt) is None


@given(st.integers(1, 50), seconds, seconds)
def test_linear_grows_by_its_step(attempt: int, initial: float, step: float) -> None:
    expected = min(initial + (attempt - 1) * step, 900)

    assert RetryPolicy.linear(initial, step, jitter=0).delay(attempt) == pytest.approx(expected)


@given(st.integers(1, 20), st.floats(0.001, 100), st.floats(1, 5))
def test_exponential_grows_by_its_multiplier(attempt: int, initial: float, multiplier: float) -> None:
    expected = min(initial * multiplier ** (attempt - 1), 900)

    assert RetryPolicy.exponential(initial, multiplier, jitter=0).delay(attempt) == pytest.approx(expected)


@given(attempts)
def test_no_wait_stays_no_wait_however_often(attempt: int) -> None:
    assert RetryPolicy.exponential(0, 100, jitter=0).delay(attempt) == 0


@given(policies)
def test_the_jitter_uses_its_whole_width_and_both_sides(policy: RetryPolicy) -> None:
    plain = RetryPolicy.fixed(100.0, jitter=policy.jitter)
    delays = [plain.delay(1, Random(seed)) or 0.0 for seed in range(200)]

    assert all(100 * (1 - plain.jitter) <= delay <= 100 * (1 + plain.jitter) for delay in delays)
    assert max(delays) >= 100 + 80 * plain.jitter
    assert min(delays) <= 100 - 80 * plain.jitter


def test_jobs_that_failed_together_do_not_return_together() -> None:
    policy = RetryPolicy.exponential()

    assert len({policy.delay(3) for _ in range(100)}) > 90


@given(policies)
def test_a_policy_survives_pickling_and_can_be_a_key(policy: RetryPolicy) -> None:
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert {policy: 1}[policy] == 1


# -- errors that are not worth a retry


class Refused(ConnectionError):
    """A subclass, as libraries have them."""


@pytest.mark.parametrize(
    "name", ["Refused", "ConnectionError", "OSError", "Exception", f"{__name__}.Refused", "builtins.OSError"]
)
def test_it_gives_up_on_a_listed_error_and_on_its_subclasses(name: str) -> None:
    assert RetryPolicy.fixed(give_up_on=(name,)).gives_up_on(Refused()) is True


@pytest.mark.parametrize("names", [(), ("ValueError",), ("refused",), ("Refuse",), ("other.Refused",)])
def test_it_goes_on_after_any_other_error(names: tuple[str, ...]) -> None:
    assert RetryPolicy.fixed(give_up_on=names).gives_up_on(Refused()) is False


LISTED: list[Any] = ["Refused", "OSError", f"{__name__}.Refused", Refused, ConnectionError, Exception]


@pytest.mark.parametrize("listed", LISTED)
def test_it_retries_a_listed_error_and_its_subclasses(listed: Any) -> None:
    assert RetryPolicy.fixed(retry_on=["ValueError", listed]).gives_up_on(Refused()) is False


@pytest.mark.parametrize("listed", ["ValueError", "refused", "other.Refused", ValueError, ConnectionResetError])
def test_it_retries_no_error_but_the_listed_ones(listed: Any) -> None:
    assert RetryPolicy.fixed(retry_on=[listed]).gives_up_on(Refused()) is True


@pytest.mark.parametrize("listed", LISTED)
def test_it_gives_up_on_what_is_listed_for_both(listed: Any) -> None:
    assert RetryPolicy.fixed(give_up_on=[listed], retry_on=[Exception]).gives_up_on(Refused()) is True
    assert RetryPolicy.fixed(give_up_on=["OSError"], retry_on=[listed]).gives_up_on(Refused()) is True


def test_it_goes_on_after_what_is_listed_for_a_retry_and_not_for_giving_up() -> None:
    policy = RetryPolicy.fixed(give_up_on=[KeyError], retry_on=[LookupError])

    assert [policy.gives_up_on(error) for error in (KeyError(), IndexError(), ValueError())] == [True, False, True]


def test_a_class_of_the_same_name_is_another_one() -> None:
    class Refused(Exception):  # not the one above
        pass

    policy = RetryPolicy.fixed(give_up_on=[Refused])

    assert (policy.gives_up_on(Refused()), policy.gives_up_on(globals()["Refused"]())) == (True, False)


def test_an_error_of_another_process_counts_as_what_it_was_there() -> None:
    error = RemoteError("Refused: no", kinds_of(Refused()))

    assert RetryPolicy.fixed(give_up_on=[OSError]).gives_up_on(error) is True
    assert RetryPolicy.fixed(retry_on=[Refused]).gives_up_on(error) is False
    assert RetryPolicy.fixed(give_up_on=[RemoteError]).gives_up_on(error) is False


MAKE: list[Any] = [RetryPolicy, RetryPolicy.fixed, RetryPolicy.linear, RetryPolicy.exponential]


@pytest.mark.parametrize("make", MAKE)
def test_errors_are_kept_by_name_as_a_tuple(make: Any) -> None:
    policy = make(give_up_on=["ValueError", KeyError, KeyError], retry_on=iter([Refused]))

    assert (policy.give_up_on, policy.retry_on) == (("ValueError", "builtins.KeyError"), (f"{__name__}.Refused",))
    assert policy == pickle.loads(pickle.dumps(policy))
    assert policy != make(give_up_on=["ValueError", KeyError])


@pytest.mark.parametrize("make", MAKE)
def test_none_are_listed_at_first(make: Any) -> None:
    assert (make().give_up_on, make().retry_on) == ((), ())


# -- bad input

BAD: list[tuple[Any, str]] = [
    (lambda: RetryPolicy(strategy="square"), "strategy to be one of none, fixed, linear, exponential, got 'square'"),  # type: ignore[arg-type]
    *[(lambda value=value: RetryPolicy.fixed(value), "delay to be") for value in (-1, "1", None, float("nan"), True)],
    *[(lambda value=value: RetryPolicy.linear(value), "initial to be") for value in (-1, "1", None, float("inf"))],
    *[(lambda value=value: RetryPolicy.linear(1, value), "step to be") for value in (-1, "1", None)],
    *[(lambda value=value: RetryPolicy.exponential(1, value), "multiplier to be") for value in (-1, "1", None)],
    *[(lambda value=value: RetryPolicy.exponential(cap=value), "cap to be") for value in (-1, "1", None)],
    *[(lambda value=value: RetryPolicy.fixed(jitter=value), "jitter to be") for value in (-0.1, 1.1, "1", None)],
    *[
        (lambda make=make, name=name, value=value: make(**{name: value}), f"{name} to be")
        for make in (RetryPolicy, RetryPolicy.fixed, RetryPolicy.linear, RetryPolicy.exponential)
        for name in ("give_up_on", "retry_on")
        for value in ("ValueError", ValueError, 5, None, [5], [""])
    ],
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_bad_value_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=f"^expected {message}"):
        make()
