"""A database whose transactions see what was there when they began: the storage's see what is there."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from qml_nb import Job, JobState, Storage
from qml_nb.servers import LocalServers
from tests.faults.conftest import Connect
from tests.versions import PROGRAMS

WRITERS = 20


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
async def test_many_writers_lose_nothing_and_double_nothing_whatever_the_database_isolates(
    connect: Connect, servers: LocalServers, isolation
) -> None:
    url = servers.postgres(programs=PROGRAMS, options={"default_transaction_isolation": isolation})
    storages = [connect(url, max_connections=5) for _ in range(WRITERS)]
    jobs = [[Job("work", [writer, number]) for number in range(30)] for writer in range(WRITERS)]
    ends = await asyncio.gather(*(work(storages[writer], jobs[writer]) for writer in range(WRITERS)))

    handed = Counter(job_id for end in ends for job_id in end)
    assert set(handed) == {job.id for each in jobs for job in each}
    assert set(handed.values()) == {1}
    counts = {state: many for state, many in (await storages[0].get_job_counts()).items() if many}
    assert counts == {JobState.SUCCEEDED: WRITERS * 30}


async def work(storage: Storage, jobs: list[Job]) -> list[str]:
    """Store jobs one by one, and twice at that, and run whatever comes until all are done; returns what was run."""
    ran: list[str] = []
    for job in jobs:
        assert await storage.enqueue(job) is True
        assert await storage.enqueue(job) is False
        await storage.sweep()
        ran += await run_some(storage)
    while sum(many for state, many in (await storage.get_job_counts()).items() if state is not JobState.SUCCEEDED):
        ran += await run_some(storage)
    return ran


async def run_some(storage: Storage) -> list[str]:
    claimed = await storage.fetch_available_jobs_atomic("worker", 3, lease=600)
    assert all(await asyncio.gather(*map(storage.complete, claimed)))
    return [job.id for job in claimed]
