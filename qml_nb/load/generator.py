"""`LoadGenerator`: open-loop load. Jobs arrive when they should, whether or not the queue keeps up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from logging import getLogger
from random import Random
from threading import Lock, Thread
from time import time
from typing import TYPE_CHECKING, Self

from qml_nb import loops
from qml_nb.errors import CapacityExceeded, InvalidValue, StorageUnavailable
from qml_nb.load.arrivals import check_arrivals, gap
from qml_nb.load.outlet import Outlet
from qml_nb.load.tasks import Mix
from qml_nb.validate import check_int, check_name

if TYPE_CHECKING:
    from types import TracebackType

    from qml_nb.job import Job
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.load")

_TICK, _LONGEST_TICK = 0.001, 0.008
_BATCH = 1_000
_LATE = 0.01
_AWAY_PAUSE = 0.2
_LOOK = 0.02


class LoadGenerator:
    """Sends synthetic jobs to a storage at a rate, from a background thread with an event loop of its own.

    Each job has an intended instant, fixed by rate, arrival process and seed alone; that instant becomes its
    `created_at`. If the sender or the queue falls behind, the delay shows in the latency instead of thinning the load
    out (open loop: no coordinated omission). `start` and `stop` return at once; `rate`, `mix` and `arrivals` may be
    changed while it runs, and so may `storage`. As a coroutine, `run(seconds)` sends without a thread.

    The next jobs leave without waiting for the storage's answer to those before. A server that goes away does not end the
    load: what can't be sent for some seconds is `lost`, and counted.

    Args:
        storage: where to; with a thread, one that may be called from any.
        rate: jobs a second; 0 for none.
        mix: which jobs.
        arrivals: "constant" or "poisson".
        queue: the queue that they go to.
        seed: of everything that is drawn.
        max_retries: of each job.
    """

    def __init__(
        self,
        storage: Storage,
        rate: float = 100.0,
        *,
        mix: Mix | None = None,
        arrivals: str = "constant",
        queue: str = "default",
        seed: int = 0,
        max_retries: int = 0,
    ) -> None:
        self._outlet = Outlet(storage)
        self.queue = check_name("queue", queue)
        self.max_retries = check_int("max_retries", max_retries, 0)
        self.sent = 0
        """Jobs stored so far."""
        self.late = 0
        """Of these, jobs that left more than 10 ms after their intended instant: the sender was the bottleneck."""
        self.refused = 0
        """Jobs that a full storage refused; their instants have passed, they are not sent again."""
        self.lost = 0
        """Jobs given up since the storage's server was away; some may have been stored before the answer got lost."""
        self.error: BaseException | None = None
        """What ended the load, if it did not stop by itself."""
        # Two streams: how many gaps were drawn before a job must not change the job, nor the other way round.
        self._gaps, self._jobs = Random(seed), Random(f"jobs of {seed}")
        self._lock = Lock()
        self._thread: Thread | None = None
        self._stopping = False
        self._burst = 0
        self._next = self._pace = 0.0
        self.mix = Mix() if mix is None else mix
        self.arrivals = arrivals
        self.rate = rate

    @property
    def storage(self) -> Storage:
        """Where the jobs go; those on their way still go to the one before."""
        return self._outlet.storage

    @storage.setter
    def storage(self, storage: Storage) -> None:
        self._outlet = Outlet(storage)

    @property
    def mix(self) -> Mix:
        """Which jobs."""
        return self._mix

    @mix.setter
    def mix(self, mix: Mix) -> None:
        if not isinstance(mix, Mix):
            raise InvalidValue("mix", "to be a Mix", mix, "write Mix(noop=1)")
        self._mix = mix

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate < float("inf"):
            raise InvalidValue("rate", "to be a number of jobs a second, at least 0", rate)
        self._rate = float(rate)

    @property
    def arrivals(self) -> str:
        """The arrival process."""
        return self._arrivals

    @arrivals.setter
    def arrivals(self, arrivals: str) -> None:
        self._arrivals = check_arrivals(arrivals)

    @property
    def is_running(self) -> bool:
        """Whether it sends."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    def start(self) -> Self:
        """Begin to send. Returns at once; does nothing while it runs."""
        with self._lock:
            if not self.is_running:
                self.join()
                self._stopping, self.error, self._pace = False, None, 0.0
                self._thread = Thread(target=self._serve, name="qml-nb load", daemon=True)
                self._thread.start()
        return self

    def stop(self) -> Self:
        """Send no more. Returns at once; what was sent stays in the queue."""
        self._stopping = True
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended, `timeout` seconds at the most. Returns whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def burst(self, jobs: int) -> None:
        """Send that many jobs at once, on top of the rate; all are intended for this instant."""
        jobs = check_int("jobs", jobs, 1, 10_000_000)
        self._burst += jobs  # no call between load and store: the sender takes them meanwhile, in its own thread

    async def run(self, seconds: float | None = None) -> None:
        """Send for that long, or until `stop`. Jobs whose instant lies within it are all sent before it returns."""
        self._stopping, self._pace = False, 0.0
        await self._run(seconds)

    async def _run(self, seconds: float | None) -> None:
        end = None if seconds is None else time() + seconds
        while not self._stopping and (end is None or time() < end):
            await self._send(self._due(time() if end is None else min(time(), end)))
            await asyncio.sleep(max(_TICK, min(self._outlet.pace, _LONGEST_TICK)))
        if end is not None and not self._stopping:
            await self._send(self._due(end))
        await self._outlet.landed()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop().join()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"LoadGenerator({self.rate:g} jobs/s, {self.arrivals}, queue={self.queue!r}, {state})"

    def _serve(self) -> None:
        try:
            loops.run(self._run(None))  # not `run`, which would forget a `stop` that came before it
        except BaseException as error:
            self.error = error
            log.exception("%r ended by an error", self)

    def _due(self, now: float) -> list[float]:
        """Return the intended instants that have come since the last call."""
        burst, self._burst = self._burst, 0
        due = [now] * burst
        while self._pace and (instant := self._next) <= now:
            due.append(instant)
            self._next = instant + gap(self._arrivals, self._pace, self._gaps)
        if self._pace != self._rate:
            self._change_pace(now, self._rate)
        return due

    def _change_pace(self, now: float, rate: float) -> None:
        """Let what is left of the gap pass at the new rate: not all at once, and not all over again."""
        left = (self._next - now) * self._pace if self._pace else gap(self._arrivals, 1.0, self._gaps)
        self._pace = rate
        if rate:
            self._next = now + left / rate

    async def _send(self, instants: list[float]) -> None:
        for start in range(0, len(instants), _BATCH):
            while not await (outlet := self._outlet).place(_LOOK) and not self._stopping:
                pass
            if self._stopping:
                return
            batch = [self._job(instant) for instant in instants[start : start + _BATCH]]
            await self._leave(outlet, batch)
            await asyncio.sleep(0)  # memory never suspends, and `run` may share its loop

    async def _leave(self, outlet: Outlet, batch: list[Job]) -> None:
        late = sum(time() - job.created_ts > _LATE for job in batch)
        sending = self._enqueue(outlet.storage, batch, late)
        if outlet.storage.backend.round_trip:
            outlet.launch(sending)
        else:  # the answer is there at once, and a task would only cost
            await sending

    async def _enqueue(self, storage: Storage, batch: list[Job], late: int) -> None:
        try:
            await storage.enqueue_many(batch)
        except CapacityExceeded:
            self.refused += len(batch)
        except StorageUnavailable as error:
            self.lost += len(batch)
            log.warning("%r lost %d jobs: %s", self, len(batch), error)
            await asyncio.sleep(_AWAY_PAUSE)  # on its way all the while: so few tries a second
        else:
            self.sent += len(batch)
            self.late += late

    def _job(self, instant: float) -> Job:
        created_at = datetime.fromtimestamp(instant, UTC)
        return self.mix.job(self._jobs, self.queue, created_at=created_at, max_retries=self.max_retries)
