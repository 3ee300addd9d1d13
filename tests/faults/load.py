"""Load that goes on while something breaks, and knows afterwards what must be there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from qml_nb import BackgroundJobServer, Job, JobState, Storage, StorageUnavailable, WorkerRegistry

LONG = 40.0
"""Seconds that nothing takes; it only ends a test that hangs."""
PACE = 0.005
BATCH = 20


async def until(true: Callable[[], Any]) -> None:
    """Return once the condition, plain or to be awaited, holds."""
    async with asyncio.timeout(LONG):
        while not (await answer if isinstance(answer := true(), Awaitable) else answer):
            await asyncio.sleep(0.01)


class Load:
    """Producers that enqueue one by one and in batches, and a server that runs what they enqueue."""

    def __init__(self, storage: Storage, **options: Any) -> None:
        self.storage = storage
        self.stored: list[Job] = []
        """Jobs whose enqueue returned."""
        self.unsure: list[Job] = []
        """Jobs whose enqueue raised `StorageUnavailable`."""
        self.runs: Counter[int] = Counter()
        self._numbers = iter(range(10**9))
        registry = WorkerRegistry()
        registry.register("note", self._note)
        self.server = BackgroundJobServer(
            storage, registry, lease=1.0, worker_count=20, scheduler_poll_interval=0.05, **options
        )

    async def _note(self, number: int) -> None:
        self.runs[number] += 1

    async def produce(self, batch: int) -> None:
        """Enqueue until cancelled."""
        while True:
            jobs = [Job("note", [next(self._numbers)]) for _ in range(batch)]
            try:
                await self._enqueue(jobs)
                self.stored += jobs
            except StorageUnavailable:
                self.unsure += jobs
            await asyncio.sleep(PACE)

    async def _enqueue(self, jobs: list[Job]) -> None:
        new = await (self.storage.enqueue(jobs[0]) if len(jobs) == 1 else self.storage.enqueue_many(jobs))
        assert new == len(jobs)

    async def goes_on(self, many: int = 100) -> None:
        """Return once so many more jobs were stored, and have run."""
        first = len(self.stored)
        await until(lambda: len(self.stored) >= first + many)
        wanted = [job.args[0] for job in self.stored[first : first + many]]
        await until(lambda: all(self.runs[number] for number in wanted))

    async def is_refused(self) -> None:
        """Return once an enqueue has raised."""
        before = len(self.unsure)
        await until(lambda: len(self.unsure) > before)

    def forget(self) -> None:
        """Ask no more for what was stored up to now."""
        self.stored.clear()

    async def check(self) -> None:
        """Return if nothing is left, and each job that was surely stored has succeeded."""
        await self.storage.drained("default", timeout=LONG)
        found = await self.storage.backend.get([job.id for job in self.stored])
        assert [job for job in found if job is None or job.state is not JobState.SUCCEEDED] == []
        assert all(self.runs[job.args[0]] for job in self.stored)


@asynccontextmanager
async def load(storage: Storage, **options: Any) -> AsyncIterator[Load]:
    """Run a load; at the end the producers stop, the server runs what is left, and nothing may be lost."""
    made = Load(storage, **options)
    async with made.server:
        producers = [asyncio.create_task(made.produce(batch)) for batch in (1, 1, BATCH)]
        try:
            await made.goes_on()
            yield made
        finally:
            for producer in producers:
                producer.cancel()
            ended: list[Any] = await asyncio.gather(*producers, return_exceptions=True)
        for error in ended:
            if not isinstance(error, asyncio.CancelledError):
                raise error
        await made.check()
