"""How long a job that comes to idle servers waits: from the call of `enqueue` to its handler, in another process.

Run as `python -m qml_nb.tuning.pickup URL KEY_PREFIX` it is that other process; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from time import time_ns
from typing import TYPE_CHECKING

from qml_nb import BackgroundJobServer, Job, WorkerRegistry, loops, open_storage

if TYPE_CHECKING:
    from qml_nb import Storage

_PAUSE = 0.01
_TIME_TO_START = 30.0

registry = WorkerRegistry()


@registry.task
async def note_delay(asked: int) -> int:
    """Return the nanoseconds since `asked`; both processes read the same clock."""
    return time_ns() - asked


async def pickup_times(url: str, key_prefix: str, samples: int) -> list[float]:
    """Return delays in milliseconds, one job at a time."""
    command = (sys.executable, "-m", "qml_nb.tuning.pickup", url, key_prefix)
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    try:
        async with await open_storage(url, key_prefix=key_prefix) as storage:
            await _one(storage)  # the first one waits for the process to start
            return [await _one(storage) for _ in range(samples)]
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def _one(storage: Storage) -> float:
    job = Job("note_delay", [time_ns()])
    await storage.enqueue(job)
    await asyncio.sleep(_PAUSE)  # to ask at once whether it is done would slow down what is measured
    await storage.drained(timeout=_TIME_TO_START)
    done = await storage.get(job.id)
    assert done is not None
    delay: int = done.result
    return delay / 1e6


async def _serve(url: str, key_prefix: str) -> None:
    async with (
        await open_storage(url, key_prefix=key_prefix) as storage,
        BackgroundJobServer(storage, registry, worker_count=10),
    ):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    loops.run(_serve(*sys.argv[1:]))
