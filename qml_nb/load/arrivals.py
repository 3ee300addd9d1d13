"""When jobs arrive: gaps between intended instants, drawn with a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from qml_nb.errors import InvalidValue

if TYPE_CHECKING:
    from random import Random

Arrivals = Literal["constant", "poisson"]
ARRIVALS: Final[tuple[Arrivals, ...]] = ("constant", "poisson")


def check_arrivals(value: object) -> Arrivals:
    """Return the name of an arrival process if it is one."""
    for name in ARRIVALS:
        if value == name:
            return name
    raise InvalidValue("arrivals", f"to be one of {', '.join(ARRIVALS)}", value)


def gap(arrivals: Arrivals, rate: float, random: Random) -> float:
    """Return the seconds from one arrival to the next at `rate` jobs a second.

    "constant" is a metronome; "poisson" is what many independent callers make together: the gaps are exponential.

    >>> from random import Random
    >>> gap("constant", 50.0, Random(1))
    0.02
    >>> random = Random(1)
    >>> 0.0198 < sum(gap("poisson", 50.0, random) for _ in range(100_000)) / 100_000 < 0.0202
    True
    """
    return 1.0 / rate if arrivals == "constant" else random.expovariate(rate)
