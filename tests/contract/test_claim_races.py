"""No job goes to two workers, and none is forgotten, however many claim at once."""

import asyncio
from collections import Counter
from typing import Any

from qml_nb.job import Job, Outcome
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.contract.states import ids, put
from tests.contract.threads import THREADS, in_threads


async def work(storage: Storage, worker: str, limit: int) -> list[str]:
    """Claim and complete until nothing is left; returns the ids of all jobs that came."""
    done: list[str] = []
    while jobs := await storage.fetch_available_jobs_atomic(worker, limit):
        assert all(job.worker_id == worker for job in jobs)
        done += ids(jobs)
        await asyncio.sleep(0)
        outcomes = [Outcome(job.id, job.claim_id, JobState.SUCCEEDED) for job in jobs]
        assert all(await storage.settle(outcomes))
        await asyncio.sleep(0)
    return done


async def test_a_hundred_workers_share_ten_thousand_jobs_without_a_double_or_a_gap(storage: Storage) -> None:
    jobs = [Job("work", queue=f"q{number % 3}", priority=number % 5) for number in range(10_000)]
    await storage.enqueue_many(jobs)

    done = await asyncio.gather(*(work(storage, f"worker-{number}", 1 + number % 20) for number in range(100)))

    assert Counter(job_id for mine in done for job_id in mine) == Counter(ids(jobs))
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 10_000


async def test_workers_in_several_threads_share_the_jobs_without_a_double_or_a_gap(
    storage: Storage, connect: Any
) -> None:
    jobs = await put(storage, 4_000)

    done = await in_threads(connect, lambda storage, number: work(storage, f"worker-{number}", 7))

    assert Counter(job_id for mine in done for job_id in mine) == Counter(ids(jobs))
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 4_000


async def test_jobs_stored_from_several_threads_are_all_there_once(storage: Storage, connect: Any) -> None:
    shared = [Job("shared") for _ in range(200)]

    async def push(storage: Storage, number: int) -> int:
        for _ in range(200):
            await storage.enqueue(Job("own", queue=f"q{number}"))
        return await storage.enqueue_many(shared)

    new = await in_threads(connect, push)

    assert sum(new) == 200
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 200 * (THREADS + 1)


async def test_every_move_from_several_threads_at_once_leaves_the_counts_exact(storage: Storage, connect: Any) -> None:
    jobs = await put(storage, 400)

    async def live(storage: Storage, number: int) -> None:
        for job in jobs[number::2]:  # two threads on each job
            await storage.cancel(job.id)
            for mine in await storage.fetch_available_jobs_atomic(f"worker-{number}", 2):
                await storage.fail(mine, "it broke")
                await storage.requeue(mine.id)
            await storage.update(job.replace(priority=number))
            await storage.sweep()

    await in_threads(connect, live)

    stored = Counter(job.state for job in await storage.list(limit=400))
    assert {state: many for state, many in (await storage.get_job_counts()).items() if many} == stored
