"""How fast a server empties a storage: the same for each of them."""

from __future__ import annotations

import gc
from time import perf_counter
from typing import TYPE_CHECKING, Any

from qml_nb.config import ServerConfig
from qml_nb.load.tasks import synthetic_tasks
from qml_nb.server.server import BackgroundJobServer
from qml_nb.states import SUCCEEDED
from qml_nb.tuning.enqueueing import in_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.storage.storage import Storage


async def drain_rate(
    storage: Storage,
    jobs: int,
    worker_count: int,
    queues: Sequence[str] = ("default",),
    registry: WorkerRegistry | None = None,
    **options: Any,
) -> float:
    """Return jobs a second, from the start of the server until the storage says that all are finished."""
    config = ServerConfig("bench", worker_count=worker_count, queues=queues, **options)
    server = BackgroundJobServer(storage, registry or synthetic_tasks(), config)
    before = (await storage.get_job_counts())[SUCCEEDED]
    gc.collect()
    began = perf_counter()
    async with server:
        await server.drained()
        took = perf_counter() - began
    counts = await storage.get_job_counts()
    assert counts[SUCCEEDED] - before == jobs, counts
    return jobs / took


async def filled_and_drained(
    storage: Storage, jobs: int, many: int, worker_count: int, queues: Sequence[str] = ("default",)
) -> float:
    """Store so many jobs, `many` a call, and return the rate at which they are drained."""
    await in_calls(storage, jobs, many, queues)
    return await drain_rate(storage, jobs, worker_count, queues)
