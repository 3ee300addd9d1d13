"""`Histogram`: durations, counted in steps of less than 1 %, that add up over servers, instants and runs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Self

from hdrh.histogram import HdrHistogram

from qml_nb.errors import InvalidValue
from qml_nb.server.telemetry import TICK, bucket, bucket_middle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HIGHEST = 2**40
_DIGITS = 2


class Histogram:
    """Counts durations in seconds. The steps are HdrHistogram's (2 significant digits), in ticks of 1.024 µs.

    >>> histogram = Histogram.of([0.001] * 98 + [0.5, 1.0])
    >>> [round(value, 3) for value in histogram.percentiles(50, 95, 99)]
    [0.001, 0.001, 0.5]
    >>> (histogram + histogram).count
    200
    """

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: Counter[int] = +Counter(buckets or {})  # without steps that hold nothing

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self:
        """Count the durations; one below 0 counts as 0."""
        return cls(Counter(bucket(max(int(value / TICK), 0)) for value in seconds))

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return self.buckets.total()

    @property
    def mean(self) -> float:
        """The mean in seconds, to the width of the steps; NaN without durations."""
        if not self.buckets:
            return float("nan")
        return sum(bucket_middle(step) * many for step, many in self.buckets.items()) / self.count

    @property
    def max(self) -> float:
        """The longest in seconds, to the width of its step; NaN without durations."""
        return bucket_middle(max(self.buckets)) if self.buckets else float("nan")

    def percentiles(self, *percents: float) -> list[float]:
        """Return for each of the percents, in ascending order, the seconds that this share does not exceed.

        The share is counted up from below: of 100 durations the 99th is the 99th shortest. NaN without durations.
        """
        if list(percents) != sorted(percents) or not all(0 <= percent <= 100 for percent in percents):
            raise InvalidValue("percents", "to ascend from 0 to 100", percents)
        if not self.buckets:
            return [float("nan")] * len(percents)
        ranks = [max(percent / 100 * self.count, 1) - 1e-9 for percent in percents]
        values: list[float] = []
        seen = 0
        for step in sorted(self.buckets):
            seen += self.buckets[step]
            while len(values) < len(ranks) and seen >= ranks[len(values)]:
                values.append(bucket_middle(step))
        return values

    def add(self, buckets: Mapping[int, int]) -> None:
        """Add counts by bucket, as a `Snapshot` carries them for each phase."""
        self.buckets.update(buckets)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.buckets + other.buckets)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and +self.buckets == +other.buckets

    def encode(self) -> bytes:
        """Return HdrHistogram's own compressed form (V2, base64), in ticks of 1.024 µs: other tools read it."""
        hdr = HdrHistogram(1, _HIGHEST, _DIGITS)
        for step, many in self.buckets.items():
            hdr.record_value(min(int(bucket_middle(step) / TICK), _HIGHEST), many)
        encoded: bytes = hdr.encode()
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Return what `encode` wrote."""
        hdr = HdrHistogram.decode(encoded)
        return cls(
            {
                bucket(int(item.value_iterated_to)): item.count_added_in_this_iter_step
                for item in hdr.get_recorded_iterator()
            }
        )

    def __repr__(self) -> str:
        if not self.buckets:
            return "Histogram(empty)"
        p50, p95, p99 = self.percentiles(50, 95, 99)
        return f"Histogram({self.count} durations, p50={p50:.3g} s, p95={p95:.3g} s, p99={p99:.3g} s)"
