"""Tasks with a known cost, and mixes of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING, Any

from qml_nb.config import Options
from qml_nb.errors import InvalidValue
from qml_nb.job import Job
from qml_nb.server.registry import WorkerRegistry
from qml_nb.validate import check_seconds

if TYPE_CHECKING:
    from random import Random


class SyntheticFailure(Exception):
    """What a synthetic job raises that was meant to fail."""


def synthetic_tasks(registry: WorkerRegistry | None = None) -> WorkerRegistry:
    """Register `noop`, `sleep`, `cpu` and `mixed` (half the time each), in the registry given or in a new one.

    Each takes the seconds that it costs, and `fail=True` to raise `SyntheticFailure` at the end. `sleep` waits on the
    event loop, as a job does that waits for a network; `cpu` computes in a thread, as a plain function does.
    """
    registry = WorkerRegistry() if registry is None else registry
    registry.register("noop", _noop)
    registry.register("sleep", _sleep)
    registry.register("cpu", _cpu)
    registry.register("mixed", _mixed)
    return registry


async def _noop(_seconds: float = 0.0, *, fail: bool = False) -> None:
    if fail:
        _fail_if(fail)


async def _sleep(seconds: float, *, fail: bool = False) -> None:
    await asyncio.sleep(seconds)
    _fail_if(fail)


def _cpu(seconds: float, *, fail: bool = False) -> None:
    burn(seconds)
    _fail_if(fail)


async def _mixed(seconds: float, *, fail: bool = False) -> None:
    await asyncio.sleep(seconds / 2)
    await asyncio.to_thread(burn, seconds / 2)
    _fail_if(fail)


def burn(seconds: float) -> int:
    """Compute for that long by the clock, whatever else the machine does. Returns how many rounds it came to."""
    end = perf_counter() + seconds
    rounds = 0
    while perf_counter() < end:
        rounds += 1
    return rounds


def _fail_if(fail: bool) -> None:
    if fail:
        raise SyntheticFailure("a synthetic job that was meant to fail")


@dataclass(frozen=True, slots=True)
class Mix(Options):
    """Which synthetic jobs arrive, as weights, and what each costs.

    `Mix(noop=3, sleep=1, sleep_seconds=0.05, failing=0.1)`: three in four do nothing, one sleeps 50 ms, and of all of
    them a tenth fails. Weights need not add up to anything.

    >>> from random import Random
    >>> job = Mix(noop=0, cpu=1, cpu_seconds=0.002).job(Random(1), "default")
    >>> job.method, job.args
    ('cpu', [0.002])
    """

    noop: float = 1.0
    sleep: float = 0.0
    cpu: float = 0.0
    mixed: float = 0.0
    sleep_seconds: float = 0.01
    cpu_seconds: float = 0.001
    mixed_seconds: float = 0.01
    failing: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            check_seconds(name, getattr(self, name), above=False) if name.endswith("seconds") else _check_weight(
                name, getattr(self, name)
            )
        if not self.noop + self.sleep + self.cpu + self.mixed:
            raise InvalidValue("mix", "to have a weight above 0", self, "as in Mix(noop=1)")
        if self.failing > 1:
            raise InvalidValue("failing", "to be a share from 0 to 1", self.failing)

    def job(self, random: Random, queue: str, **options: Any) -> Job:
        """Draw a job."""
        [method] = random.choices(_METHODS, cum_weights=list(accumulate((self.noop, self.sleep, self.cpu, self.mixed))))
        seconds = 0.0 if method == "noop" else getattr(self, f"{method}_seconds")
        fail = {"fail": True} if self.failing and random.random() < self.failing else None
        return Job(method, [seconds] if seconds else (), fail, queue=queue, **options)


_METHODS = ("noop", "sleep", "cpu", "mixed")


def _check_weight(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise InvalidValue(name, "to be a number of at least 0", value)
