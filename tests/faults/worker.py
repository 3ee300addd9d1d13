"""A process of workers: notes each job that it is handed, and each one that it ran, in a file of its own.

    python -m tests.faults.worker URL FILE

Ends in order when its input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from qml_nb import BackgroundJobServer, Job, RedisStorage, ServerConfig, WorkerRegistry

SLOTS = 25
LEASE = 2.0
RUN_TIME = 0.005


class NotingStorage(RedisStorage):
    """Writes down what is handed out, before anybody runs it."""

    def __init__(self, url: str, file: int) -> None:
        super().__init__(url)
        self.file = file

    async def claim(self, *args: Any, **kwargs: Any) -> list[Job]:
        """Claim, and note each job."""
        jobs = await super().claim(*args, **kwargs)
        lines = "".join(f"handed {job.id} {job.attempt} {job.claim_id}\n" for job in jobs)
        os.write(self.file, lines.encode())
        return jobs


async def main(url: str, path: str) -> None:
    """Work until the input ends."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    registry = WorkerRegistry()

    @registry.task("note")
    async def note(number: int) -> None:
        await asyncio.sleep(RUN_TIME)
        os.write(file, f"ran {number}\n".encode())

    config = ServerConfig(worker_count=SLOTS, fetch_batch_size=SLOTS, lease=LEASE)
    async with NotingStorage(url, file) as storage, BackgroundJobServer(storage, registry, config):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
