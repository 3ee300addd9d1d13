"""What becomes of a job: its result and progress, its retries, and its end when it was cancelled or killed its workers."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest

from qml_nb import Job, JobFailed, JobState, Retry, RetryPolicy, job_context
from qml_nb.states import CRASH_ATTEMPTS, LOST_LEASE
from tests.server.waiting import LONG, ended, full_house, in_state, run, until


async def test_who_follows_a_job_hears_how_far_it_is_and_then_its_result(storage, registry, serve) -> None:
    step = asyncio.Event()

    @registry.task
    async def walk(steps: int) -> str:
        for number in range(1, steps + 1):
            job_context().progress(number, steps, "walking")
            await step.wait()
            step.clear()
        job_context().progress(steps + 1, steps, "there")
        return "the result"

    await serve(progress_interval=0)
    await storage.enqueue(job := Job("walk", [3]))
    seen = []
    async with asyncio.timeout(LONG), aclosing(storage.follow(job.id)) as snapshots:
        async for snapshot in snapshots:
            if snapshot.progress and snapshot.progress["done"] not in seen:  # the end tells the last word again
                seen.append(snapshot.progress["done"])
                step.set()
    assert seen == [1, 2, 3, 4]
    assert snapshot.progress == {"done": 4, "total": 3, "message": "there"}
    assert await storage.result(job.id, timeout=LONG) == "the result"


async def test_the_last_word_of_each_of_many_jobs_is_kept(storage, registry, serve) -> None:
    @registry.task
    def count(number: int) -> None:
        for step in range(50):
            job_context().progress(step, number)

    await serve(worker_count=10)
    jobs = await run(storage, *(Job("count", [number]) for number in range(100)))
    assert [job.progress for job in jobs] == [{"done": 49, "total": n, "message": ""} for n in range(100)]


async def test_who_waits_for_a_result_is_told_of_the_failure(storage, registry, serve) -> None:
    registry.register("divide", lambda a, b: a / b)
    await serve()
    await storage.enqueue_many([good := Job("divide", [1, 4]), bad := Job("divide", [1, 0])])
    assert await storage.result(good.id, timeout=LONG) == 0.25
    with pytest.raises(JobFailed, match="ZeroDivisionError"):
        await storage.result(bad.id, timeout=LONG)


async def test_a_running_job_that_is_cancelled_is_stopped_at_once(storage, registry, serve) -> None:
    reasons: list[str | None] = []
    started = asyncio.Event()

    @registry.task
    async def hold() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(job_context().cancel_reason)

    server = await serve(lease=3600)
    await storage.enqueue(job := Job("hold", max_retries=3))
    await started.wait()
    assert await storage.cancel(job.id)
    await until(lambda: reasons)
    assert reasons == ["lost"]
    await full_house(server, 2)
    job = await storage.get(job.id)
    assert (job.state, job.attempt) == (JobState.DELETED, 1)


@pytest.mark.parametrize("first", ["job", "task", "server"])
async def test_the_policy_of_the_job_goes_before_that_of_the_task_and_of_the_server(
    storage, registry, serve, first
) -> None:
    policies = {"job": RetryPolicy.fixed(3000), "task": RetryPolicy.linear(2000, jitter=0, cap=9000)}
    mine = policies["job"] if first == "job" else None
    registry.register("divide", lambda: 1 / 0, retry=policies["task"] if first != "server" else None)
    await serve(retry=RetryPolicy.fixed(1000))
    await storage.enqueue(job := Job("divide", max_retries=1, retry=mine))
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert (job.run_ts - job.started_ts) // 500 * 500 == {"job": 3000, "task": 2000, "server": 1000}[first]
    assert job.retry == mine


async def test_retries_go_by_the_error_and_by_what_the_task_asks_for(storage, registry, serve) -> None:
    @registry.task
    async def moody(mood: str) -> str:
        if job_context().is_retry:
            return mood
        raise {"lookup": KeyError("no"), "os": OSError("away"), "again": Retry(0)}[mood]

    await serve()
    policy = RetryPolicy.fixed(0, retry_on=(OSError,))
    moods = ("lookup", "os", "again")
    jobs = await run(storage, *(Job("moody", [mood], max_retries=1, retry=policy) for mood in moods))
    assert [(job.state, job.attempt, job.result) for job in jobs] == [
        (JobState.FAILED, 1, None),
        (JobState.SUCCEEDED, 2, "os"),
        (JobState.SUCCEEDED, 2, "again"),
    ]


async def test_a_job_that_its_workers_never_come_back_from_has_failed_after_its_attempts(
    storage, registry, serve, monkeypatch
) -> None:
    monkeypatch.setattr("qml_nb.server.slots.GRACE", 0.05)
    release, runs = threading.Event(), []

    @registry.task
    def poison() -> None:
        runs.append(job_context().attempt)
        release.wait()

    await storage.enqueue(job := Job("poison"))
    for number in range(1, CRASH_ATTEMPTS + 1):
        server = await serve(worker_count=1, lease=0.4, shutdown_timeout=0)
        await until(lambda number=number: len(runs) == number)
        await server.stop()  # it can't be interrupted: its lease stays until that runs out
    await serve(worker_count=1)
    [job] = await ended(storage, job)
    release.set()
    assert (job.state, job.error, runs) == (JobState.FAILED, LOST_LEASE, [1, 2, 3])


async def test_what_failed_is_requeued_in_bulk_and_runs_again(storage, registry, serve) -> None:
    is_mended = False

    @registry.task
    async def work(number: int) -> int:
        if not is_mended:
            raise OSError("disk full")
        return number

    @registry.task
    async def other() -> None:
        raise KeyError

    await serve(worker_count=10)
    jobs = [Job("work", [number]) for number in range(1_200)]
    await run(storage, *jobs, Job("other"))
    is_mended = True
    assert await storage.requeue_all(method="work") == 1_200
    assert [(job.state, job.result, job.attempt) for job in await ended(storage, *jobs[::100])] == [
        (JobState.SUCCEEDED, number, 1) for number in range(0, 1_200, 100)
    ]
    assert await storage.requeue_all(method="work") == 0
    await storage.drained(timeout=LONG)
    counts = await storage.get_job_counts()
    assert (counts[JobState.SUCCEEDED], counts[JobState.FAILED]) == (1_200, 1)
