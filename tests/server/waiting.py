"""Waiting for what a server does. Every bound is far beyond what is expected: it only ends a test that hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from qml_nb import BackgroundJobServer, Job, JobState, Storage

LONG = 20.0


async def until(true: Callable[[], object], what: str = "") -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(LONG):
        while not true():
            await asyncio.sleep(0.002)


async def ended(storage: Storage, *jobs: Job) -> list[Job]:
    """Return the jobs as they stand once they all have ended."""
    async with asyncio.timeout(LONG):
        while True:
            found = [await storage.get(job.id) for job in jobs]
            if all(job is not None and job.state.is_final for job in found):
                return [job for job in found if job is not None]
            await asyncio.sleep(0.002)


async def run(storage: Storage, *jobs: Job) -> list[Job]:
    """Enqueue jobs, and return them once they have ended."""
    await storage.enqueue_many(jobs)
    return await ended(storage, *jobs)


async def in_state(storage: Storage, job: Job, state: JobState) -> Job:
    """Return the job once it is in that state."""
    async with asyncio.timeout(LONG):
        while (found := await storage.get(job.id)) is None or found.state is not state:
            await asyncio.sleep(0.002)
        return found


async def full_house(server: BackgroundJobServer, slots: int) -> None:
    """Return if `slots` jobs, and not one more, run at the same time."""
    barrier = asyncio.Barrier(slots)
    server.registry.register("meet", barrier.wait)
    for job in await run(server.storage, *(Job("meet") for _ in range(slots))):
        assert job.state is JobState.SUCCEEDED
    await until(lambda: server.snapshot().busy == 0)
    assert server.snapshot().slots == slots


async def no_threads_left() -> None:
    """Return once every thread of servers, pools and loads has ended."""
    await until(lambda: not threads())


def threads() -> list[threading.Thread]:
    """The threads of servers, pools and loads."""
    return [
        thread for thread in threading.enumerate() if thread.name.split()[-1] in ("thread", "guard", "pool", "load")
    ]
