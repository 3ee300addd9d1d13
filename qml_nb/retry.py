"""When a failed job runs again: pure functions of the attempt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, Self, TypeAlias, assert_never

from qml_nb.errors import InvalidValue
from qml_nb.validate import check_names, check_seconds

Errors: TypeAlias = Iterable[str | type[BaseException]]

_random: Final = Random()
type_names: Final = ("none", "fixed", "linear", "exponential")
LONGEST: Final = 10 * 365 * 86_400.0
"""No delay is longer than ten years, whatever the factors come to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait before each retry, and which errors are not worth one. How often is the job's `max_retries`.

    Make one with `none`, `fixed`, `linear` or `exponential`. `retry_on` lists the exceptions that are worth a retry (none
    listed: all), `give_up_on` those that fail the job at once, also where both name them: as classes, or by name as text
    (`"ValueError"`, `"package.module.Error"`); a subclass of a listed one counts too.
    `jitter` spreads each delay, a capped one too, evenly over ±that share, so that jobs which failed together do not
    return together.

    >>> [RetryPolicy.exponential(jitter=0).delay(attempt) for attempt in (1, 2, 3, 20)]
    [1.0, 2.0, 4.0, 900.0]
    """

    strategy: Literal["none", "fixed", "linear", "exponential"] = "exponential"
    initial: float = 1.0
    step: float = 2.0
    cap: float = 900.0
    jitter: float = 0.25
    give_up_on: tuple[str, ...] = ()
    retry_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in type_names:
            raise InvalidValue("strategy", f"to be one of {', '.join(type_names)}", self.strategy)
        for name in ("initial", "step", "cap"):
            check_seconds(name, getattr(self, name), above=False)
        if not 0 <= check_seconds("jitter", self.jitter, above=False) <= 1:
            raise InvalidValue("jitter", "to be a share from 0 to 1", self.jitter)
        for name in ("give_up_on", "retry_on"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))

    @classmethod
    def none(cls) -> Self:
        """Never retry, whatever the job's `max_retries`.

        >>> RetryPolicy.none().delay(1) is None
        True
        """
        return cls(strategy="none")

    @classmethod
    def fixed(cls, delay: float = 1.0, *, jitter: float = 0.0, give_up_on: Errors = (), retry_on: Errors = ()) -> Self:
        """Wait `delay` seconds each time.

        >>> [RetryPolicy.fixed(3).delay(attempt) for attempt in (1, 2, 3)]
        [3.0, 3.0, 3.0]
        """
        delay = check_seconds("delay", delay, above=False)
        return cls(
            strategy="fixed",
            initial=delay,
            cap=delay,
            jitter=jitter,
            give_up_on=_names("give_up_on", give_up_on),
            retry_on=_names("retry_on", retry_on),
        )

    @classmethod
    def linear(
        cls,
        initial: float = 1.0,
        step: float = 1.0,
        *,
        cap: float = 900.0,
        jitter: float = 0.25,
        give_up_on: Errors = (),
        retry_on: Errors = (),
    ) -> Self:
        """Wait `initial` seconds, then `step` seconds longer each time, `cap` seconds at the most.

        >>> [RetryPolicy.linear(1, 5, cap=10, jitter=0).delay(attempt) for attempt in (1, 2, 3)]
        [1.0, 6.0, 10.0]
        """
        return cls(
            strategy="linear",
            initial=initial,
            step=step,
            cap=cap,
            jitter=jitter,
            give_up_on=_names("give_up_on", give_up_on),
            retry_on=_names("retry_on", retry_on),
        )

    @classmethod
    def exponential(
        cls,
        initial: float = 1.0,
        multiplier: float = 2.0,
        *,
        cap: float = 900.0,
        jitter: float = 0.25,
        give_up_on: Errors = (),
        retry_on: Errors = (),
    ) -> Self:
        """Wait `initial` seconds, then `multiplier` times as long each time, `cap` seconds at the most.

        >>> policy = RetryPolicy.exponential(1, 10, jitter=0.5)
        >>> all(5 <= policy.delay(2, Random(seed)) <= 15 for seed in range(100))
        True
        """
        step = check_seconds("multiplier", multiplier, above=False)
        return cls(
            strategy="exponential",
            initial=initial,
            step=step,
            cap=cap,
            jitter=jitter,
            give_up_on=_names("give_up_on", give_up_on),
            retry_on=_names("retry_on", retry_on),
        )

    def delay(self, attempt: int, random: Random = _random) -> float | None:
        """Return the seconds to wait after the `attempt`-th run (1 for the first) failed; None for no retry."""
        match self.strategy:
            case "none":
                return None
            case "fixed":
                base = self.initial
            case "linear":
                base = self.initial + self.step * (attempt - 1)
            case "exponential":
                base = _power(self.initial, self.step, attempt - 1)
            case _:
                assert_never(self.strategy)
        spread = 1 + self.jitter * (2 * random.random() - 1) if self.jitter else 1.0
        return min(base, self.cap, LONGEST) * spread

    def gives_up_on(self, error: BaseException) -> bool:
        """Whether the error is worth no retry.

        >>> RetryPolicy.fixed(give_up_on=("LookupError",)).gives_up_on(KeyError("x"))
        True
        >>> RetryPolicy.fixed(retry_on=(OSError,)).gives_up_on(KeyError("x"))
        True
        """
        if not (self.give_up_on or self.retry_on):
            return False
        names = kinds_of(error)
        return not names.isdisjoint(self.give_up_on) or bool(self.retry_on and names.isdisjoint(self.retry_on))


def kinds_of(error: BaseException) -> frozenset[str]:
    """Return the names of the error's class and of those that it descends from, with and without their modules.

    One that stands for an error of another process, which lists them as its `kinds`, answers with these.

    >>> sorted(name for name in kinds_of(KeyError("x")) if "." not in name)
    ['BaseException', 'Exception', 'KeyError', 'LookupError', 'object']
    """
    kinds = getattr(error, "kinds", None)
    if isinstance(kinds, frozenset):
        return kinds
    return frozenset(name for kind in type(error).__mro__ for name in _both_names(kind))


def _both_names(kind: type) -> tuple[str, str]:
    return kind.__name__, f"{kind.__module__}.{kind.__qualname__}"


def _names(field: str, errors: Errors) -> tuple[str, ...]:
    """Return the names by which errors are listed."""
    if isinstance(errors, str) or not isinstance(errors, Iterable):
        raise InvalidValue(field, "to be a list of exceptions", errors, f"write [{errors!r}]")
    names = [_both_names(kind)[1] if isinstance(kind, type) else kind for kind in errors]
    return check_names(field, names) or ()


def _power(initial: float, multiplier: float, times: int) -> float:
    try:
        return initial * float(multiplier) ** times
    except OverflowError:
        return LONGEST if initial else 0.0
