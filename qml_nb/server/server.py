"""`BackgroundJobServer`: claims jobs in batches, runs each in a slot, and settles them in batches."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from logging import getLogger
from time import perf_counter_ns, time
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakValueDictionary

from qml_nb.config import ServerConfig
from qml_nb.errors import InvalidValue, StorageClosed
from qml_nb.ids import new_id
from qml_nb.retry import RetryPolicy
from qml_nb.server.broadcast import Broadcast
from qml_nb.server.cancels import Cancels
from qml_nb.server.demand import Demand
from qml_nb.server.hooks import Hooks
from qml_nb.server.progress import Reports
from qml_nb.server.recurring import fire_due
from qml_nb.server.settling import Settling
from qml_nb.server.slots import GRACE, TURN, Slots
from qml_nb.server.stall import StallGuard
from qml_nb.server.telemetry import Meter, Snapshot
from qml_nb.server.turns import Turns
from qml_nb.storage.backend import ServerInfo
from qml_nb.validate import check_int

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from types import TracebackType

    from qml_nb.job import Job
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.server")

SNAPSHOT_INTERVAL = 0.1
SETTLE_DELAY = 0.002
"""Seconds that an outcome waits for company while slots are busy. With idle slots it does not wait."""
HEARTBEAT_INTERVAL = 10.0
_DEADLINE_INTERVAL = 0.05
_UNSETTLED = 10_000
"""Outcomes that may wait for a storage that does not answer, before no more jobs are claimed."""
_RETRY_FIRST, _RETRY_LONGEST = 0.1, 5.0
_SWEEP_LIMIT = 10_000

servers_here: Final[WeakValueDictionary[str, BackgroundJobServer]] = WeakValueDictionary()
"""The servers of this process, by id; after a fork also those that stayed in the parent."""


class BackgroundJobServer:
    """Runs the jobs of a storage: `async with BackgroundJobServer(storage, registry, ServerConfig("mailer")): …`.

    One task claims jobs for all idle slots at once, each job runs as a task of its own (plain functions in threads, or
    in processes if they were registered so), and outcomes are written many at a time. Leaving the block stops it
    gracefully: nothing more is claimed, what has not started goes back at once, what runs gets `shutdown_timeout`
    seconds, is then cancelled and goes back too. A plain function in a thread can't be cancelled for certain; one that
    goes on keeps its lease until that runs out. A process is killed.

    Args:
        storage: where the jobs are.
        registry: the tasks, by method.
        config: see `ServerConfig`; or give its options by name.
        retry: when failed jobs run again, where neither job nor task has a policy of its own. How often is in the job.
    """

    def __init__(
        self,
        storage: Storage,
        registry: WorkerRegistry,
        config: ServerConfig | None = None,
        *,
        retry: RetryPolicy | None = None,
        **options: Any,
    ) -> None:
        self.storage = storage
        self.registry = registry
        self.config = ServerConfig.of(config, options)
        self.server_id = f"{self.config.server_name}#{new_id()}"
        self.meter = Meter()
        self.listeners: list[Callable[[Snapshot], None]] = []
        """Called in the server's loop with each snapshot, ten times a second; must return at once and not raise."""
        servers_here[self.server_id] = self
        self._retry = RetryPolicy.exponential() if retry is None else retry
        self._queues = tuple(self.config.queues) or None
        self._in_turn = self.config.queue_order == "strict"
        self._turns = None if self.config.weights is None else Turns(self.config.weights)
        self._broadcast = Broadcast(storage)
        self._about: dict[str, Any] = {
            "server_name": self.config.server_name,
            "queues": tuple(self.config.queues),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._slots: Slots | None = None
        self._stopping = False
        self._parked = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_running(self) -> bool:
        """Whether it has started and not stopped."""
        return self._slots is not None

    # -- life

    async def start(self) -> None:
        """Register, and begin to claim jobs. Returns at once."""
        if self._slots is not None:
            raise InvalidValue("server", "to be stopped before it starts", self.server_id, "make a second one")
        self._stopping = self._last = False
        self._loop = asyncio.get_running_loop()
        self._hungry, self._settle_wake = asyncio.Event(), asyncio.Event()
        self._reports = Reports(self.storage, self.config.progress_interval)
        self._hooks, self._outcomes = Hooks(self.registry.hooks), Settling(self.storage, self._reports)
        self._cancels = Cancels(self.storage, self._renew)
        self._slots = slots = Slots(
            self.config, self.registry, self._retry, self._reports, self._settle_soon, self._need_more
        )
        self._hungry.set()
        self._guard = StallGuard(self._slots, self.config.server_name)
        self._fetching = asyncio.create_task(self._fetch(slots))
        self._settling = asyncio.create_task(self._settle(slots))
        self._tasks = [
            asyncio.create_task(self._every(interval, work))
            for interval, work in (
                (self.config.scheduler_poll_interval, self._sweep),
                (self.config.scheduler_poll_interval, self._fire_recurring),
                (self.config.lease / 3, self._renew),
                (HEARTBEAT_INTERVAL, self._beat),
                (min(SNAPSHOT_INTERVAL, self.config.telemetry_interval or SNAPSHOT_INTERVAL), self._tell),
                # Not told anew for it: a monitor samples as snapshots come, and one out of step makes its pictures old.
                (self.config.telemetry_interval, self._broadcast.send),
                (_DEADLINE_INTERVAL, self._check_deadlines),
                (0.0, self._cancels.hear_of_cancelled_jobs),
                (0.0, self._reports.write_progress),
            )
            if interval is not None
        ]
        try:
            await self.storage.register_server(self._info())
        except BaseException:
            await self.stop()
            raise
        if self._slots is not slots:  # stopped meanwhile
            await self.storage.deregister(self.server_id)

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop gracefully, as the class says. Does nothing if it has stopped.

        With `at_once`, also while another call waits, what runs gets no more time; to cancel the call does the same.
        """
        if self._slots is None:
            return
        if not self._stopping:
            self._stopping = True
            self._grace = asyncio.create_task(self._let_end(self._slots))
            self._ending = asyncio.create_task(self._finish(self._slots))
        if at_once:
            self._grace.cancel()
        try:
            await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            self._grace.cancel()
            await asyncio.shield(self._ending)
            raise

    async def drained(self, *, timeout: float | None = None) -> None:
        """Return once no unfinished job is left in this server's queues; see `Storage.drained`."""
        await self.storage.drained(*self.config.queues, timeout=timeout)

    def resize(self, worker_count: int) -> None:
        """Change the number of slots. Jobs that run in slots too many end in peace."""
        check_int("worker_count", worker_count, 1, 100_000)
        if self._slots is not None:
            self._slots.resize(worker_count)

    def snapshot(self) -> Snapshot:
        """Return the counters, and the phases of the jobs since the last snapshot."""
        slots = self._slots
        count, busy, buffered = (slots.count, slots.busy, len(slots.buffer)) if slots is not None else (0, 0, 0)
        about = self._about | {"interval": self.config.telemetry_interval or SNAPSHOT_INTERVAL}
        return self.meter.snapshot(self.server_id, time(), slots=count, busy=busy, buffered=buffered, **about)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else "running" if self.is_running else "stopped"
        return f"BackgroundJobServer({self.config.server_name!r}, {state})"

    # -- jobs come, run and go

    async def _fetch(self, slots: Slots) -> None:
        demand = Demand(slots, self.config.fetch_batch_size, ahead=self.storage.backend.round_trip)
        pause = _RETRY_FIRST
        while not self._stopping:
            limit = demand.jobs()
            if not limit or len(slots.ended) > _UNSETTLED:
                self._hungry.clear()
                await self._hungry.wait()
                continue
            try:
                demand.asks()
                jobs = await self._claim(limit)
                demand.gets(len(jobs))
                if jobs:
                    self.meter.claimed += len(jobs)
                    if self.registry.hooks:
                        self._hooks.claimed(jobs)
                    slots.offer(jobs)
                elif slots.idle > 0 and not self._stopping:  # else others have an idle slot for what comes
                    await self._wait_for_work()
                pause = _RETRY_FIRST
            except Exception as error:
                pause = await self._lament("claim jobs", error, pause)
            if perf_counter_ns() - slots.turn_began > TURN:
                await asyncio.sleep(0)
                slots.turn_began = perf_counter_ns()

    async def _claim(self, limit: int) -> list[Job]:
        claim, lease, turns = self.storage.claim, self.config.lease, self._turns
        if turns is None:
            return await claim(self.server_id, self._queues, limit, lease, in_turn=self._in_turn)
        jobs = await claim(self.server_id, turns.order(), limit, lease, in_turn=True)
        turns.gave(limit, (job.queue for job in jobs))
        return jobs

    async def _wait_for_work(self) -> None:
        self._parked = True
        try:
            await self.storage.wait(self.config.queues or None, self.config.polling_interval)
        finally:
            self._parked = False

    def _need_more(self) -> None:
        self._hungry.set()
        if self._slots is not None and self._slots.idle > 0:
            self._settle_wake.set()

    def _settle_soon(self) -> None:
        """A job ended and waits for its settlement: at once if slots run idle, else with others that end meanwhile."""
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_DELAY, self._settle_now)

    def _settle_now(self) -> None:
        self._timer = None
        self._settle_wake.set()

    async def _settle(self, slots: Slots) -> None:
        pause = _RETRY_FIRST
        while not self._last or (slots.ended and not self.storage.closed):
            self._settle_wake.clear()
            if not slots.ended:
                await self._settle_wake.wait()
                continue
            try:
                await self._settle_batch(slots)
                pause = _RETRY_FIRST
            except Exception as error:  # outcomes are kept and sent again, for as long as it takes
                pause = await self._lament("settle jobs", error, pause)
            self._hungry.set()

    async def _settle_batch(self, slots: Slots) -> None:
        batch, answers = await self._outcomes.write(slots)
        self.meter.count(batch, answers)
        if self.registry.hooks:
            self._hooks.settled(batch, answers)

    # -- upkeep

    async def _every(self, interval: float, work: Callable[[], Awaitable[None]]) -> None:
        pause = _RETRY_FIRST
        while True:
            await asyncio.sleep(interval)
            try:
                await work()
                pause = _RETRY_FIRST
            except Exception as error:
                pause = await self._lament(work.__name__.strip("_").replace("_", " "), error, pause)

    async def _lament(self, what: str, error: Exception, pause: float) -> float:
        if isinstance(error, StorageClosed) or self._stopping:
            await asyncio.sleep(pause)
            return pause
        log.warning(
            "%s could not %s, tries again in %.1f s: %s: %s", self.server_id, what, pause, type(error).__name__, error
        )
        await asyncio.sleep(pause)
        return min(pause * 2, _RETRY_LONGEST)

    async def _sweep(self) -> None:
        moved = _SWEEP_LIMIT
        while moved >= _SWEEP_LIMIT:  # there may be more, which is not to wait for the next time
            moved = max(await self.storage.sweep(_SWEEP_LIMIT))
            await asyncio.sleep(0)  # in memory, nothing else gives the loop its turn

    async def _fire_recurring(self) -> None:
        await fire_due(self.storage.backend)

    async def _renew(self, only: Collection[str] | None = None) -> None:
        """Renew the leases, or those of some ids, and drop what is no longer held."""
        slots = self._slots
        if slots is None:
            return
        jobs = [run.job for run in (*slots.running, *slots.ended)] + list(slots.buffer)
        if only is not None:
            jobs = [job for job in jobs if job.id in only]
        if jobs:
            held = await self.storage.renew(jobs, self.config.lease)
            slots.drop({job.claim_id for job, holds in zip(jobs, held, strict=True) if not holds})

    async def _beat(self) -> None:
        if not await self.storage.heartbeat(self.server_id):
            await self.storage.register_server(self._info())

    async def _tell(self) -> None:
        snapshot = self.snapshot()
        if self.config.telemetry_interval is not None:
            self._broadcast.add(snapshot)
        for listener in list(self.listeners):
            listener(snapshot)

    async def _broadcast_all(self) -> None:
        """Publish all that was not yet, up to now."""
        try:
            await self._tell()
        finally:
            await self._broadcast.send()

    async def _check_deadlines(self) -> None:
        self._guard.alive()
        if self._slots is not None:
            self._slots.check_deadlines()

    # -- the end

    @property
    def _patience(self) -> float:
        """Seconds that the storage gets to answer at the end."""
        return max(self.config.shutdown_timeout, GRACE)

    async def _let_end(self, slots: Slots) -> None:
        """Claim no more, hand back what has not started, and give what runs its time to end."""
        slots.hand_back()
        if self._parked:
            self._fetching.cancel()
        self._hungry.set()
        await asyncio.wait([self._fetching], timeout=self._patience)
        slots.hand_back()
        await slots.wait(self.config.shutdown_timeout)

    async def _finish(self, slots: Slots) -> None:
        """Cancel what still runs, write the last outcomes, tell the last snapshot, and let everything go."""
        await asyncio.wait([self._grace])
        self._fetching.cancel()
        slots.hand_back()
        self.meter.cut_short += await slots.end()
        self._last = True
        self._settle_wake.set()
        await asyncio.wait([self._settling], timeout=self._patience)  # what can't be written, leases will free
        for task in (*self._tasks, self._fetching, self._settling):
            task.cancel()
        await asyncio.gather(*self._tasks, self._fetching, self._settling, return_exceptions=True)
        await self._hooks.end(self._patience)
        await self._cancels.leave()
        with suppress(Exception):
            await self.storage.deregister(self.server_id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._guard.stop()
        await slots.close()
        self._slots, self._stopping = None, False
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._broadcast_all()

    def _info(self) -> ServerInfo:
        return ServerInfo(self.server_id, worker_count=self.config.worker_count, **self._about)
