"""A process of workers: notes each job that it is handed, and each one that it ran, in a file of its own.

    python -m tests.faults.worker URL FILE

Ends in order when its input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from random import random
from typing import Any

from qml_nb import BackgroundJobServer, Job, RetryPolicy, ServerConfig, Storage, WorkerRegistry, open_storage

SLOTS = 25
LEASE = 2.0
RUN_TIME = 0.005
FAILING = 0.1
"""The share of runs that fail, and are retried."""


def note_claims(storage: Storage, file: int) -> None:
    """Have what is handed out written down, before anybody runs it."""
    claim = storage.claim

    async def claim_and_note(*args: Any, **kwargs: Any) -> list[Job]:
        jobs = await claim(*args, **kwargs)
        lines = "".join(f"handed {job.id} {job.attempt} {job.claim_id}\n" for job in jobs)
        os.write(file, lines.encode())
        return jobs

    storage.claim = claim_and_note  # type: ignore[method-assign]


async def main(url: str, path: str) -> None:
    """Work until the input ends."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    registry = WorkerRegistry()

    @registry.task("note")
    async def note(number: int) -> None:
        await asyncio.sleep(RUN_TIME)
        if random() < FAILING:
            raise RuntimeError("this time not")
        os.write(file, f"ran {number}\n".encode())

    config = ServerConfig(worker_count=SLOTS, fetch_batch_size=SLOTS, lease=LEASE)
    async with await open_storage(url) as storage:
        note_claims(storage, file)
        async with BackgroundJobServer(storage, registry, config, retry=RetryPolicy.fixed(0.05)):
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
