"""What a queue may hand out and take in, and how much of that is used up."""

from __future__ import annotations

import sys
from math import ceil, inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qml_nb.config import QueueConfig


class Limits:
    """One queue's configuration, and `used`: the instant up to which the turns of its rate are used."""

    __slots__ = ("config", "used")

    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.used = 0.0

    def turns(self, running: int, now: float) -> int:
        """Return how many jobs may be handed out now, `running` others being under way.

        >>> from qml_nb.config import QueueConfig
        >>> limits = Limits(QueueConfig(rate=2, burst=3))
        >>> limits.use(3, now=10.0)
        >>> [limits.turns(0, now) for now in (10.0, 10.25, 10.5, 11.5, 99.0)]
        [0, 0, 1, 3, 3]
        """
        config = self.config
        turns = sys.maxsize if config.concurrency is None else config.concurrency - running
        if config.rate is not None:
            turns = min(turns, config.burst - ceil(max(self.used - now, 0.0) * config.rate))
        return max(turns, 0)

    def next_turn(self, running: int) -> float:
        """Return the instant from which on the rate leaves a turn; infinity if not time brings it, but the end of a job."""
        config = self.config
        if config.rate is None or (config.concurrency is not None and running >= config.concurrency):
            return inf
        return self.used - (config.burst - 1) / config.rate

    def use(self, jobs: int, now: float) -> None:
        """Note how many jobs were handed out."""
        if self.config.rate is not None:
            self.used = max(self.used, now) + jobs / self.config.rate

    @property
    def drops(self) -> bool:
        """Whether new jobs come in always, at the cost of old ones."""
        return self.config.when_full == "drop_oldest"

    def room(self, waiting: int) -> int:
        """Return how many new jobs come in, `waiting` others being there."""
        most = self.config.max_waiting
        return sys.maxsize if most is None or self.drops else max(most - waiting, 0)

    def surplus(self, waiting: int) -> int:
        """Return how many of the waiting jobs have to go."""
        most = self.config.max_waiting
        return max(waiting - most, 0) if most is not None and self.drops else 0
