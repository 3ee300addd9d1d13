"""Whose turn it is: the order in which a server asks queues that have weights."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LEAST_SHARE = 1e-9


class Turns:
    """Shares what is handed out among queues by weight.

    Each queue has a clock, which every job that it gives moves on by 1/weight, and the one whose clock is most behind is
    asked first: while all of them have jobs, no queue is ever ahead of its share by more than one claim. One that had
    less to give than was asked of it never stays behind those that had more: its share is theirs, and it saves nothing
    up. (Stride scheduling: Waldspurger and Weihl, 1995.)

    >>> turns = Turns({"critical": 3, "bulk": 1})
    >>> given = []
    >>> for _ in range(8):
    ...     given += turns.order()[:1]
    ...     turns.gave(1, given[-1:])
    >>> given
    ['critical', 'bulk', 'critical', 'critical', 'critical', 'bulk', 'critical', 'critical']
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        largest = max(weights.values())
        self._stride = {name: 1 / max(weight / largest, _LEAST_SHARE) for name, weight in weights.items()}
        self._clock = dict.fromkeys(weights, 0.0)

    def order(self) -> list[str]:
        """Return the queues in the order in which the next claim is to take from them."""
        return sorted(self._clock, key=self._clock.__getitem__)

    def gave(self, asked: int, queues: Iterable[str]) -> None:
        """Note that a claim for so many jobs, in that order, got one from each of these queues, which may repeat."""
        order, got = self.order(), Counter(queues)
        short, left = set[str](), asked
        for name in order:
            if not left:
                break
            if got[name] < left:
                short.add(name)
            left -= got[name]
            self._clock[name] += got[name] * self._stride[name]
        now = min((self._clock[name] for name in order if name not in short), default=inf)
        for name in order:
            # Counted from now, so that the numbers stay small for ever.
            self._clock[name] = max(self._clock[name] - now, 0.0)
