"""`Monitor`: ten times a second, one sample of what servers and storage do."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from logging import getLogger
from math import nan
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct, field

from qml_nb.errors import StorageUnavailable
from qml_nb.measure.audience import Audience
from qml_nb.measure.histogram import Histogram
from qml_nb.server.telemetry import PHASES
from qml_nb.states import ENQUEUED
from qml_nb.storage.sync import loop_of_the_toolkit
from qml_nb.validate import check_bool, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

    from qml_nb.server.telemetry import Snapshot
    from qml_nb.states import JobState
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.measure")

INTERVAL = 0.1
_SHORTEST = 0.09
"""Seconds between two samples at the least."""
_RATE_SPAN = 5
"""Samples over which rates are taken: half a second smooths the grain of 100 ms, and is not yet late."""
_LATENCY_SPAN = 10
"""Samples over which percentiles are taken."""
_PATIENCE = 1.0
"""Seconds until a storage that does not answer is told of."""
_INBOX = 10_000
PERCENTS = (50.0, 95.0, 99.0)
_PLAIN = ("ts", "rate_in", "rate_done", "rate_failed", "depth", "busy", "slots")


class Sample(Struct, frozen=True):
    """What the queue did at an instant: rates in jobs a second over the last half second, latencies in seconds.

    `rate_in` counts what came through the monitored `Storage` object, counts and depth all that is stored. Latencies are
    of the jobs settled in the last second, NaN where there were none.
    """

    ts: float
    rate_in: float
    rate_done: float
    rate_failed: float
    depth: int
    """Jobs that wait to be claimed."""
    busy: int
    slots: int
    counts: dict[str, int]
    """Jobs stored, by state."""
    latency: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Phase → p50, p95, p99."""
    changed_ts: float = 0.0
    """The instant of the newest server snapshot in it."""


class _Totals(Struct):
    ts: float
    pushed: int
    done: int
    failed: int


class Monitor:
    """Samples a storage and its servers, on the toolkit's own loop thread.

    `samples` keeps the last `window` seconds. `watch(pool)` connects a pool or a server of this process; those of other
    processes are part of the picture as they tell of themselves in the storage, unless `elsewhere` is False. `start` and
    `stop` return at once. `listeners` are called with each sample, in the loop's thread, and must return at once.
    `storage` may be changed while it runs. While the storage does not answer there are no samples, and `error` says why.
    """

    def __init__(self, storage: Storage, *, window: float = 60.0, elsewhere: bool = True) -> None:
        self.storage = storage
        self.samples: deque[Sample] = deque(maxlen=max(int(check_seconds("window", window) / INTERVAL), 1))
        self.listeners: list[Callable[[Sample], None]] = []
        self.error: Exception | None = None
        """Why there was no sample the last time."""
        self.on_error: list[Callable[[], None]] = []
        """Called like `listeners` when `error` has come, changed or gone."""
        self._elsewhere = check_bool("elsewhere", elsewhere)
        self._audience = Audience(self._receive)
        # Filled by the servers' threads, emptied by ours; bounded, for while a storage is away nobody empties it.
        self._inbox: deque[tuple[Snapshot, Snapshot | None]] = deque(maxlen=_INBOX)
        self._done = self._failed = self._pushed_before = 0
        self._totals: deque[_Totals] = deque(maxlen=_RATE_SPAN + 1)
        self._phases: deque[dict[str, Histogram]] = deque(maxlen=_LATENCY_SPAN)
        self._wake: asyncio.Event | None = None
        self._task: Future[None] | None = None

    @property
    def servers(self) -> list[Snapshot]:
        """The newest snapshot of each server that runs, by id; one that is silent for three seconds is gone."""
        return self._audience.servers

    def watch(self, source: Any) -> Self:
        """Take the snapshots of a `WorkerPool` or a `BackgroundJobServer`."""
        self._audience.watch(source)
        return self

    def unwatch(self, source: Any) -> Self:
        """Take no more snapshots of a pool or a server: its slots, busy or not, are no longer part of the picture."""
        self._audience.unwatch(source)
        return self

    def start(self) -> Self:
        """Begin to sample. Returns at once; does nothing while it runs."""
        if self._task is None or self._task.done():
            self._task = asyncio.run_coroutine_threadsafe(self._run(), loop_of_the_toolkit())
        return self

    def stop(self) -> Self:
        """Sample no more. The samples stay."""
        if self._task is not None:
            self._task.cancel()
        return self

    @property
    def is_running(self) -> bool:
        """Whether it samples."""
        return self._task is not None and not self._task.done()

    def to_frame(self) -> Any:
        """Return the samples as a tidy pandas DataFrame: one row a sample, latencies as `run_p95_s` and so on."""
        import pandas as pd

        samples = list(self.samples)
        frame = pd.DataFrame([_row(sample) for sample in samples])
        if samples:
            frame["ts"] = pd.to_datetime(frame["ts"], unit="s", utc=True)
        return frame

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Monitor({'running' if self.is_running else 'stopped'}, {len(self.samples)} samples)"

    def _receive(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        if not self.is_running:  # nobody would empty the inbox
            return
        self._inbox.append((snapshot, before))
        if self._wake is not None:
            with suppress(RuntimeError):  # the toolkit's loop ended, as after a fork
                loop_of_the_toolkit().call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        """Sample as soon as a snapshot comes, so that none gets old; without snapshots, sample all the same."""
        for old in (self._inbox, self._totals, self._phases):  # rates don't reach over a pause
            old.clear()
        self._wake, storage = asyncio.Event(), self.storage
        listening = self._listen(storage)
        try:
            while not self.storage.closed:
                began = monotonic()
                if storage is not self.storage:  # which counts from another beginning
                    self._pushed_before += storage.totals.pushed - self.storage.totals.pushed
                    storage = self.storage
                    listening.cancel()
                    listening = self._listen(storage)
                await self._sample(storage)
                await asyncio.sleep(began + _SHORTEST - monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), INTERVAL)
                self._wake.clear()
        finally:
            listening.cancel()

    def _listen(self, storage: Storage) -> asyncio.Future[None]:
        listening = self._audience.listen(storage) if self._elsewhere else asyncio.sleep(0)
        return asyncio.ensure_future(listening)

    async def _sample(self, storage: Storage) -> None:
        error: Exception | None = None
        try:
            counts = await _counts(storage)
            if storage is self.storage:
                self._take(counts)
        except Exception as caught:
            error = caught
        if storage is self.storage:  # else it was changed meanwhile
            self._note(error)

    def _note(self, error: Exception | None) -> None:
        before, self.error = self.error, error
        if error is not None:
            log.warning("no sample of %r", self.storage, exc_info=error)
        if str(before) != str(error):
            for listener in list(self.on_error):
                listener()

    def _take(self, counts: dict[JobState, int]) -> None:
        now = time()
        received = [self._inbox.popleft() for _ in range(len(self._inbox))]
        for snapshot, before in received:
            self._count(snapshot, before)
        snapshots, servers = [snapshot for snapshot, _ in received], self.servers
        pushed = self._pushed_before + self.storage.totals.pushed
        self._totals.append(_Totals(now, pushed, self._done, self._failed))
        self._phases.append(_merged([snapshot.phases for snapshot in snapshots]))
        sample = Sample(
            now,
            self._rate("pushed"),
            self._rate("done"),
            self._rate("failed"),
            counts[ENQUEUED],
            sum(server.busy for server in servers),
            sum(server.slots for server in servers),
            {state.value: many for state, many in counts.items()},
            {phase: self._percentiles(phase) for phase in PHASES},
            max((snapshot.ts for snapshot in snapshots), default=now),
        )
        self.samples.append(sample)
        for listener in list(self.listeners):
            listener(sample)

    def _count(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        """Add what a server did since the snapshot before; of one that worked before it was watched, nothing yet."""
        told = sum(snapshot.phases["total"].values())
        if before is not None or told == snapshot.finished + snapshot.retried:
            self._done += snapshot.succeeded - (before.succeeded if before is not None else 0)
            self._failed += snapshot.failed - (before.failed if before is not None else 0)

    def _rate(self, name: str) -> float:
        first, last = self._totals[0], self._totals[-1]
        span = last.ts - first.ts
        return (getattr(last, name) - getattr(first, name)) / span if span > 0 else 0.0

    def _percentiles(self, phase: str) -> tuple[float, float, float]:
        whole = Histogram()
        for phases in self._phases:
            whole.add(phases[phase].buckets)
        p50, p95, p99 = whole.percentiles(*PERCENTS) if whole.buckets else (nan, nan, nan)
        return p50, p95, p99


async def _counts(storage: Storage) -> dict[JobState, int]:
    """Return a storage's counts, or raise within a second: it may try for longer to reach its server."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await storage.get_job_counts()
    except TimeoutError:
        raise StorageUnavailable(f"the storage did not answer within {_PATIENCE:g} s") from None


def _merged(parts: list[dict[str, dict[int, int]]]) -> dict[str, Histogram]:
    merged = {phase: Histogram() for phase in PHASES}
    for part in parts:
        for phase, buckets in part.items():
            merged[phase].add(buckets)
    return merged


def _row(sample: Sample) -> dict[str, float]:
    latencies = {
        f"{phase}_p{percent:g}_s": value
        for phase, values in sample.latency.items()
        for percent, value in zip(PERCENTS, values, strict=True)
    }
    counts = {f"count_{state}": many for state, many in sample.counts.items()}
    return {name: getattr(sample, name) for name in _PLAIN} | counts | latencies
