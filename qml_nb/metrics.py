"""Metrics for Prometheus: what is stored, what servers do, and how long it takes. Needs the extra `metrics`."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict
from functools import lru_cache
from itertools import accumulate
from logging import getLogger
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Self

from qml_nb.errors import PackageMissing
from qml_nb.measure.audience import Audience
from qml_nb.server.telemetry import MOST_NAMED, OTHER, PHASES, TaskCount, bucket_middle, task_count
from qml_nb.storage.sync import loop_of_the_toolkit
from qml_nb.validate import check_bool, check_int, check_name

try:
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
        SummaryMetricFamily,
    )
except ImportError:
    raise PackageMissing("prometheus-client", "metrics") from None

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from concurrent.futures import Future
    from types import TracebackType

    from qml_nb.server.telemetry import Snapshot
    from qml_nb.states import JobState
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.metrics")

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The bounds of the histograms, in seconds."""
_LE: Final = (*map(str, BUCKETS), "+Inf")
_PATIENCE: Final = 1.0
"""Seconds that a scrape waits for the storage."""


class Metrics:
    """What Prometheus scrapes of a storage and of the servers that are watched.

    `Metrics(storage).watch(server)` collects; `serve(port)` answers scrapes on a thread of its own, `text()` is for an
    application's own endpoint, and `registry` holds the collector for everything else. A scrape takes no longer than a
    second, also while the storage is away: then `qml_storage_up` is 0, and what the storage would know is left out.

    - `qml_jobs{queue, state}`: jobs that are stored, exactly
    - `qml_jobs_enqueued_total`: jobs that came in through this `Storage` object
    - `qml_jobs_processed_total{queue, method, state}`: runs that ended succeeded, failed or retried
    - `qml_job_run_seconds{queue, method}`: how many runs, and their seconds
    - `qml_job_phase_seconds{phase}`: histograms of queue_wait, slot_wait, run, settle and total
    - `qml_slots{server}`, `qml_busy_slots{server}`: slots of the servers that run
    - `qml_storage_up`: whether the storage answers

    Args:
        storage: what is looked at.
        elsewhere: whether to count what servers of other processes tell of themselves in the storage. Messages may get
            lost, so let each process answer for its own servers where you can.
        most: the most queues, and pairs of queue and method, that have names; what comes beyond is "other".
    """

    def __init__(self, storage: Storage, *, elsewhere: bool = False, most: int = MOST_NAMED) -> None:
        self.storage = storage
        self.registry = CollectorRegistry()
        self._most = check_int("most", most, 1, 10_000)
        self._lock = Lock()
        self._tasks: dict[tuple[str, str], TaskCount] = {}
        self._phases = {phase: [0] * len(_LE) for phase in PHASES}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._counts: dict[str, dict[JobState, int]] | None = None
        self._audience = Audience(self._receive)
        self._servers: list[tuple[Any, Any]] = []
        self._listening: Future[None] | None = None
        if check_bool("elsewhere", elsewhere):
            self._listening = _on_the_toolkit(self._audience.listen(storage))
        self.registry.register(self)

    def watch(self, source: Any) -> Self:
        """Count what a `BackgroundJobServer` or a `WorkerPool` does from now on."""
        self._audience.watch(source)
        return self

    def unwatch(self, source: Any) -> Self:
        """Count no more what a server or a pool does."""
        self._audience.unwatch(source)
        return self

    def serve(self, port: int = 9464, host: str = "127.0.0.1") -> int:
        """Answer scrapes at `http://host:port/metrics`, on a thread of its own. Returns the port: 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        check_int("port", port, 0, 65_535)
        server, thread = start_http_server(port, check_name("host", host), self.registry)
        self._servers.append((server, thread))
        return server.server_port

    async def text(self) -> bytes:
        """Return what a scrape gets, in Prometheus's text format, for an endpoint of your own."""
        return await asyncio.to_thread(generate_latest, self.registry)

    def close(self) -> None:
        """Answer no more scrapes, and hear no more of servers of other processes."""
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()
        self._servers.clear()
        if self._listening is not None:
            self._listening.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Metrics({self.storage!r})"

    # -- what Prometheus's registry calls

    def collect(self) -> Iterator[Metric]:
        """Return all of it. In a thread that runs an event loop, the storage is not asked again: see `text`."""
        if asyncio._get_running_loop() is None:
            _on_the_toolkit(self._look()).result()
        with self._lock:
            of_servers = [*self._of_tasks(), self._of_phases()]
        yield from self._of_the_storage(self._counts)
        yield from of_servers
        yield from self._of_slots()

    def describe(self) -> Iterator[Metric]:
        """Return the names alone, without asking anybody."""
        yield from self._of_the_storage({})
        yield from (*self._of_tasks(), self._of_phases(), *self._of_slots())

    def _of_the_storage(self, counts: dict[str, dict[JobState, int]] | None) -> Iterator[Metric]:
        yield GaugeMetricFamily("qml_storage_up", "Whether the storage answers", value=counts is not None)
        enqueued = self.storage.totals.pushed
        yield CounterMetricFamily("qml_jobs_enqueued", "Jobs that came in through this process's storage", enqueued)
        jobs = GaugeMetricFamily("qml_jobs", "Jobs that are stored", labels=["queue", "state"])
        for queue, states in (counts or {}).items():
            for state, many in states.items():
                jobs.add_metric([queue, state.value], many)
        yield jobs

    def _of_tasks(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("qml_jobs_processed", "Runs that ended", labels=["queue", "method", "state"])
        ran = SummaryMetricFamily("qml_job_run_seconds", "Run time", labels=["queue", "method"])
        for (queue, method), task in self._tasks.items():
            for state in ("succeeded", "failed", "retried"):
                ended.add_metric([queue, method, state], getattr(task, state))
            ran.add_metric([queue, method], task.succeeded + task.failed + task.retried, task.seconds)
        yield ended
        yield ran

    def _of_phases(self) -> Metric:
        family = HistogramMetricFamily("qml_job_phase_seconds", "Where the time of jobs goes", labels=["phase"])
        for phase, counts in self._phases.items():
            buckets = [(bound, float(many)) for bound, many in zip(_LE, accumulate(counts), strict=True)]
            family.add_metric([phase], buckets, self._seconds[phase])
        return family

    def _of_slots(self) -> Iterator[Metric]:
        slots = GaugeMetricFamily("qml_slots", "Jobs that a server can run at a time", labels=["server"])
        busy = GaugeMetricFamily("qml_busy_slots", "Jobs that a server runs", labels=["server"])
        for server in self._audience.servers:
            slots.add_metric([server.server_id], server.slots)
            busy.add_metric([server.server_id], server.busy)
        yield slots
        yield busy

    # -- what it looks at

    async def _look(self) -> None:
        """Ask the storage what it holds, for a second at the most: it may try for longer to reach its server."""
        try:
            async with asyncio.timeout(_PATIENCE):
                self._counts = self._bounded(await self.storage.get_queue_counts())
        except Exception as error:
            self._counts = None
            log.debug("the storage did not say what it holds: %s", error)

    def _bounded(self, counts: dict[str, dict[JobState, int]]) -> dict[str, dict[JobState, int]]:
        bounded: dict[str, dict[JobState, int]] = {}
        for queue, states in counts.items():
            name = queue if len(bounded) < self._most else OTHER
            kept = bounded.setdefault(name, dict.fromkeys(states, 0))
            for state, many in states.items():
                kept[state] += many
        return bounded

    def _receive(self, snapshot: Snapshot, _: Snapshot | None) -> None:
        with self._lock:
            for task in snapshot.tasks:
                task_count(self._tasks, task.queue, task.method, self._most).add(task)
            for phase, buckets in snapshot.phases.items():
                counts = self._phases[phase]
                for step, many in buckets.items():
                    place, seconds = _place(step)
                    counts[place] += many
                    self._seconds[phase] += many * seconds


@lru_cache(8_192)
def _place(step: int) -> tuple[int, float]:
    """Return the place of a step among `BUCKETS`, and the seconds that stand for it."""
    seconds = bucket_middle(step)
    return bisect_left(BUCKETS, seconds), seconds


def _on_the_toolkit(work: Coroutine[Any, Any, None]) -> Future[None]:
    return asyncio.run_coroutine_threadsafe(work, loop_of_the_toolkit())
