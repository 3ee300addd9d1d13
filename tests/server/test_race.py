"""Many workers, several servers, pools in threads: each job runs exactly once."""

from __future__ import annotations

from collections import Counter

from qml_nb import Job, JobState, MemoryStorage, RetryPolicy, WorkerPool, WorkerRegistry
from tests.server.waiting import LONG, until

JOBS = 10_000


async def test_a_hundred_workers_run_ten_thousand_jobs_once_each(storage, registry: WorkerRegistry, serve) -> None:
    ran: list[int] = []

    @registry.task
    async def note(number: int) -> None:
        ran.append(number)

    @registry.task
    def note_in_thread(number: int) -> None:
        ran.append(number)

    pools = [WorkerPool(storage, registry, servers=2, worker_count=20).start() for _ in range(2)]
    for _ in range(2):
        await serve(worker_count=10, fetch_batch_size=50)
    jobs = [
        Job("note_in_thread" if number % 50 == 0 else "note", [number], priority=number % 3) for number in range(JOBS)
    ]
    for start in range(0, JOBS, 500):
        await storage.enqueue_many(jobs[start : start + 500])
    await storage.drained(timeout=60)
    await until(lambda: storage.totals.settled == JOBS)
    for pool in pools:
        assert pool.stop().join(LONG)
    assert len(ran) == JOBS
    assert set(ran) == set(range(JOBS))
    assert await storage.get_job_counts() == dict.fromkeys(JobState, 0) | {JobState.SUCCEEDED: JOBS}
    assert {job.attempt for job in await storage.list(limit=JOBS)} == {1}
    assert storage.totals.refused == 0


def test_retries_and_failures_of_many_threads_add_up() -> None:
    storage, registry = MemoryStorage(), WorkerRegistry()
    runs: Counter[int] = Counter()

    @registry.task
    async def flaky(number: int) -> None:
        runs[number] += 1
        if number % 3 and runs[number] <= number % 3:
            raise ValueError(number)

    jobs = [Job("flaky", [number], max_retries=1) for number in range(900)]
    with WorkerPool(storage, registry, servers=4, worker_count=25, retry=RetryPolicy.fixed(0)):
        storage.sync.enqueue_many(jobs)
        storage.sync.drained(timeout=60)
    counts = storage.sync.get_job_counts()
    assert (counts[JobState.SUCCEEDED], counts[JobState.FAILED]) == (600, 300)
    assert Counter(runs.values()) == {1: 300, 2: 600}
