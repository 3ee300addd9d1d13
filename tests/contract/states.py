"""Jobs in whatever state a contract test starts from, brought there by public moves only."""

from typing import Any

from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import at

ALL = 1_000
"""A limit beyond the number of jobs of any test that passes it."""


async def put(storage: Storage, many: int = 1, **options: Any) -> list[Job]:
    """Enqueue jobs, oldest first."""
    jobs = [Job("work", [number], **options) for number in range(many)]
    await storage.enqueue_many(jobs)
    return jobs


async def claim(storage: Storage, worker: str = "worker", *, now: float = 0, **options: Any) -> Job:
    """Claim the next job, of which there is one."""
    job = await storage.fetch_and_lock_job(worker, now=at(now), **options)
    assert job is not None
    return job


async def claim_ids(
    storage: Storage, limit: int = ALL, queues: list[str] | None = None, *, now: float = 0
) -> list[str]:
    """Claim jobs, and return their ids in the order that they came out."""
    return ids(await storage.fetch_available_jobs_atomic("worker", limit, queues, now=at(now)))


async def bring_to(storage: Storage, state: JobState, *, now: float = 0, **options: Any) -> Job:
    """Store a job, the only one that waits, and move it to `state` at `now`. Returns it as stored."""
    job = Job("work", ["argument"], **options)
    if state is JobState.SCHEDULED:
        await storage.schedule(job, at=at(now + 60))
    else:
        await storage.enqueue(job)
    if state is JobState.DELETED:
        await storage.cancel(job.id, now=at(now))
    elif state not in (JobState.ENQUEUED, JobState.SCHEDULED):
        claimed = await claim(storage, now=now)
        assert claimed.id == job.id
        if state is JobState.SUCCEEDED:
            await storage.complete(claimed, {"answer": 42}, now=at(now))
        elif state is JobState.FAILED:
            await storage.fail(claimed, "it broke", now=at(now))
        elif state is JobState.AWAITING_RETRY:
            await storage.retry(claimed, 60, "it broke", now=at(now))
    stored = await storage.get(job.id)
    assert stored is not None
    assert stored.state is state
    return stored


async def one_in_each(storage: Storage) -> dict[JobState, Job]:
    """Store a job in each state, the one that waits last: no other would get past it."""
    waiting_last = sorted(JobState, key=lambda state: state is JobState.ENQUEUED)
    return {state: await bring_to(storage, state, queue=f"queue of {state}") for state in waiting_last}


def ids(jobs: list[Job]) -> list[str]:
    """The ids of jobs, in order."""
    return [job.id for job in jobs]
