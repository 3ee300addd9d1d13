"""`Rig`: a pool, its load and a monitor behind one switch. No widget: whatever the page does, the rig can do alone."""

from __future__ import annotations

from dataclasses import replace
from logging import getLogger
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from qml_nb import ServerConfig, WorkerPool, loops
from qml_nb.errors import InvalidValue, StorageUnavailable
from qml_nb.load import LoadGenerator, Mix
from qml_nb.measure import Monitor
from qml_nb.validate import check_int

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qml_nb import Storage, WorkerRegistry

log = getLogger("qml_widgets")

MIXES: Final[Mapping[str, Mix]] = {
    "no-op": Mix(noop=1),
    "sleep 10 ms": Mix(noop=0, sleep=1),
    "cpu 1 ms": Mix(noop=0, cpu=1),
    "mixed 10 ms": Mix(noop=0, mixed=1),
    "all four": Mix(noop=4, sleep=4, cpu=1, mixed=1),
}
"""What the menu of tasks offers. From code, any `Mix` will do."""
_SERVER: Final[Mapping[str, Any]] = {"server_name": "control-room", "shutdown_timeout": 5.0}
_LATE_SHARE: Final = 0.1


class Rig:
    """Starts and stops a `WorkerPool` and a `LoadGenerator`, and watches both with a `Monitor`.

    Every method returns at once and may be called from any thread. What can't start yet, because it is still about to
    stop, starts as soon as it has: `settle`, called now and then, sees to that.
    """

    def __init__(
        self,
        storage: Storage,
        registry: WorkerRegistry,
        *,
        workers: int,
        rate: float,
        arrivals: str,
        mix: Mix,
        queue: str,
        seed: int,
        window: float,
        **options: Any,
    ) -> None:
        config = ServerConfig(**{**_SERVER, **options, "worker_count": workers, "queues": [queue]})
        self.storage = storage
        self.pool = WorkerPool(storage, registry, config)
        self.load = LoadGenerator(storage, rate, mix=mix, arrivals=arrivals, queue=queue, seed=seed)
        self.monitor = Monitor(storage, window=window).watch(self.pool)
        self.closed = False
        self._lock = Lock()
        self._pool_due = self._load_due = False
        self._burst_error: BaseException | None = None
        self._pace = _Pace()

    # -- on and off

    def start(self, *, pool: bool = True, load: bool = True) -> None:
        """Start the pool, the load or both, and the monitor."""
        with self._lock:
            self.check_open()
            self.monitor.start()
            self._pool_due |= pool and not self.pool.is_running
            self._load_due |= load and not self.load.is_running
            self._settle()

    def stop(self, *, pool: bool = True, load: bool = True) -> None:
        """Stop the load, the pool or both. Jobs that wait stay in the queue; the monitor goes on."""
        with self._lock:
            if load:
                self._load_due = False
                self.load.stop()
            if pool:
                self._pool_due = False
                self.pool.stop()

    def settle(self) -> None:
        """Start what was asked for and could not start before."""
        with self._lock:
            self._settle()

    def _settle(self) -> None:
        if self._pool_due and self.pool.join(0):
            self._pool_due = False
            self.pool.start()
        if self._load_due and self.load.join(0):
            self._load_due = False
            self.load.start()

    def move(self, storage: Storage) -> WorkerPool:
        """Go on with another storage: what runs, runs on there. Returns the pool that ends on the one before.

        A server belongs to its storage, so the pool is a new one; load and monitor stay what they are.
        """
        with self._lock:
            self.check_open()
            before, on = self.pool, self.pool_on
            if storage is not self.storage:
                self.storage = self.load.storage = self.monitor.storage = storage
                self.pool = self._successor(before, storage)
                self._pool_due = on
                before.stop()
                self._settle()
            self.monitor.start()
            return before

    def _successor(self, before: WorkerPool, storage: Storage) -> WorkerPool:
        pool = WorkerPool(storage, before.registry, before.config, servers=before.servers)
        pool.resize(before.worker_count)
        self.monitor.unwatch(before).watch(pool)
        pool.listeners += before.listeners
        return pool

    def close(self) -> None:
        """Stop everything, for good."""
        self.stop()
        with self._lock:
            self.closed = True
            self.monitor.stop()

    def check_open(self) -> None:
        """Raise if it was closed."""
        if self.closed:
            raise InvalidValue("control room", "to be open", "a closed one", "make a new ControlRoom()")

    @property
    def pool_on(self) -> bool:
        """Whether the pool runs, or is about to."""
        return self.pool.is_running or self._pool_due

    @property
    def load_on(self) -> bool:
        """Whether the load runs, or is about to."""
        return self.load.is_running or self._load_due

    # -- knobs

    def burst(self, jobs: int) -> None:
        """Send that many jobs at once, whether or not the load runs."""
        check_int("jobs", jobs, 1, 1_000_000)
        self.check_open()
        self.monitor.start()
        once = LoadGenerator(self.load.storage, 0.0, mix=self.load.mix, queue=self.load.queue)
        once.burst(jobs)
        Thread(target=self._send, args=(once,), name="control-room burst", daemon=True).start()

    def _send(self, once: LoadGenerator) -> None:
        self._burst_error = None
        try:
            loops.run(once.run(0.0))
            if once.lost:
                raise StorageUnavailable(f"{once.lost:,} jobs were not stored, for the storage was away")
        except Exception as error:
            self._burst_error = error
            log.warning("a burst ended by an error", exc_info=True)

    @property
    def tasks(self) -> str:
        """The name of the mix in `MIXES`, whatever share fails; "custom" if it is none of them."""
        plain = replace(self.load.mix, failing=0.0)
        return next((name for name, mix in MIXES.items() if mix == plain), "custom")

    @property
    def troubles(self) -> list[str]:
        """What ended the pool, the load or the last burst, and what the load could not do, in words."""
        away = self.pool.is_running and self.monitor.error is not None  # which is told in one place
        pool_error = None if away else self.pool.error
        ended = (("pool", pool_error), ("load", self.load.error), ("burst", self._burst_error))
        return [f"{what}: {type(error).__name__}: {error}" for what, error in ended if error is not None] + [
            *self._pace.troubles(self.load)
        ]


class _Pace:
    """Whether the load of the last second went out as it should."""

    def __init__(self) -> None:
        self._before = (0.0, 0, 0, 0, 0)
        self._troubles: list[str] = []

    def troubles(self, load: LoadGenerator) -> list[str]:
        """Return what is wrong, in words; at most once a second it looks anew."""
        then, sent, late, refused, lost = self._before
        now = monotonic()
        if now - then >= 1.0:
            self._before = now, load.sent, load.late, load.refused, load.lost
            sent, late = load.sent - sent, load.late - late
            refused, lost = load.refused - refused, load.lost - lost
            behind = sent and late / sent > _LATE_SHARE
            self._troubles = [f"the load runs behind: {late / sent:.0%} of the jobs left late"] if behind else []
            self._troubles += [f"the storage is full: {refused:,} jobs were refused"] if refused else []
            self._troubles += [f"{lost:,} jobs of the load were lost, for the storage was away"] if lost else []
        return self._troubles
