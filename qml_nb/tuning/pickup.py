"""How long a job that comes to idle servers waits: from the call of `enqueue` to its handler, in another process.

Run as `python -m qml_nb.tuning.pickup URL OPTIONS`, the options of the storage as JSON, it is
that other process; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import time_ns
from typing import TYPE_CHECKING, Any

from qml_nb import BackgroundJobServer, Job, WorkerRegistry, loops, open_storage
from qml_nb.tuning.figures import Figure, figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qml_nb import Storage

_PAUSE = 0.01
_TIME_TO_START = 30.0

registry = WorkerRegistry()


@registry.task
async def note_delay(asked: int) -> int:
    """Return the nanoseconds since `asked`; both processes read the same clock."""
    return time_ns() - asked


def pickup_figures(url: str, options: Mapping[str, Any], samples: int, goals: Mapping[int, float]) -> Iterator[Figure]:
    """Measure one job at a time on a storage with these options, and yield a figure for each percentile that has a goal."""
    delays = sorted(loops.run(_delays(url, options, samples)))
    for percent, goal in goals.items():
        value = delays[min(int(len(delays) * percent / 100), len(delays) - 1)]
        what = f"pick-up at idle, enqueue call to handler in another process, p{percent}"
        yield figure(what, [value], "ms", goal=goal, at_least=False)


async def _delays(url: str, options: Mapping[str, Any], samples: int) -> list[float]:
    command = (sys.executable, "-m", "qml_nb.tuning.pickup", url, json.dumps(dict(options)))
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    try:
        async with await open_storage(url, **options) as storage:
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


async def _serve(url: str, options: str) -> None:
    async with (
        await open_storage(url, **json.loads(options)) as storage,
        BackgroundJobServer(storage, registry, worker_count=10),
    ):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    loops.run(_serve(*sys.argv[1:]))
