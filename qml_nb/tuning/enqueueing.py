"""How fast a storage takes jobs in, by each way that users have. All return jobs a second."""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter
from typing import TYPE_CHECKING

from qml_nb.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.storage.storage import Storage


async def alone(jobs: int) -> float:
    """What Python alone makes of so many tasks at once, its garbage collector included: each makes a job, and waits."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[bool]] = []

    async def enqueue(_: Job) -> bool:
        future: asyncio.Future[bool] = loop.create_future()
        waiting.append(future)
        return await future

    async def store() -> None:
        for future in waiting:
            future.set_result(True)

    gc.collect()
    began = perf_counter()
    await asyncio.gather(*(enqueue(Job("noop", [number])) for number in range(jobs)), store())
    return jobs / (perf_counter() - began)


async def gathered(storage: Storage, jobs: int) -> float:
    """All at once, by `gather`."""
    gc.collect()
    began = perf_counter()
    await asyncio.gather(*(storage.enqueue(Job("noop", [number])) for number in range(jobs)))
    return jobs / (perf_counter() - began)


async def as_tasks(storage: Storage, jobs: int) -> float:
    """All at once, each wrapped in a task."""
    gc.collect()
    began = perf_counter()
    await asyncio.gather(*[asyncio.create_task(storage.enqueue(Job("noop", [number]))) for number in range(jobs)])
    return jobs / (perf_counter() - began)


async def from_producers(storage: Storage, jobs: int, producers: int) -> float:
    """So many producers, each of which awaits one `enqueue` after the other."""

    async def produce() -> None:
        for number in range(jobs // producers):
            await storage.enqueue(Job("noop", [number]))

    gc.collect()
    began = perf_counter()
    await asyncio.gather(*(produce() for _ in range(producers)))
    return jobs // producers * producers / (perf_counter() - began)


async def in_calls(storage: Storage, jobs: int, many: int, queues: Sequence[str] = ("default",)) -> float:
    """`enqueue_many`, so many a call, of jobs that were made before."""
    made = [Job("noop", [number], queue=queues[number % len(queues)]) for number in range(jobs)]
    gc.collect()
    began = perf_counter()
    for first in range(0, jobs, many):
        await storage.enqueue_many(made[first : first + many])
    return jobs / (perf_counter() - began)
