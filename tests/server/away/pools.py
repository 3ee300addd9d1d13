"""What tests of pools share whose servers run in other processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from qml_nb import Job, RedisStorage, Storage, WorkerPool, WorkerRegistry
from qml_nb.servers.reaper import children_of
from tests.server.waiting import LONG

Make = Callable[..., WorkerPool]
"""Makes a pool; takes what `WorkerPool` takes after its registry, and another `storage`."""


def wait(true: Callable[[], object]) -> None:
    """Return once the condition holds."""
    end = monotonic() + LONG
    while not true():
        assert monotonic() < end
        sleep(0.005)


@contextmanager
def redis_storage(url: str, **options: Any) -> Iterator[RedisStorage]:
    """An empty storage."""
    storage = RedisStorage(url=url, key_prefix=f"pool-{uuid4().hex}", **options)
    yield storage
    storage.sync.close()


@contextmanager
def pools(storage: Storage | str, registry: WorkerRegistry, **options: Any) -> Iterator[Make]:
    """Makes pools, and stops them in the end."""
    made: list[WorkerPool] = []
    least = {"worker_count": 2, "fetch_batch_size": 1, "shutdown_timeout": 0.1} | options

    def make(**options: Any) -> WorkerPool:
        made.append(WorkerPool(options.pop("storage", storage), registry, **least | options))
        return made[-1]

    yield make
    for pool in made:
        pool.stop()
    assert all(pool.join(LONG) for pool in made)
    for pool in made:
        if pool.storage is not storage:
            pool.storage.sync.close()


def results(storage: Storage, *jobs: Job) -> list[Any]:
    """Run jobs, and return what they return."""
    storage.sync.enqueue_many(jobs)
    wait(lambda: all(storage.sync.get(job.id).state.is_final for job in jobs))
    return [storage.sync.get(job.id).result for job in jobs]


def pids(storage: Storage, jobs: int = 20) -> set[int]:
    """Return the processes that ran some jobs."""
    return set(results(storage, *(Job("pid") for _ in range(jobs))))


def servers_of(storage: Storage) -> set[int]:
    """Return the processes whose servers are listed."""
    return {row.pid for row in storage.sync.list_servers()}


def runs(pool: WorkerPool) -> bool:
    """Whether all servers have started."""
    return pool.state == "running"


def processes() -> set[int]:
    """The processes of servers and of their tasks that this one has started."""
    found = set()
    for pid in children_of(os.getpid()):
        with suppress(OSError):
            if b"qml_nb.server." in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found
