"""Draining: all that waits runs through a real server, and the test gets what ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from qml_nb import Job, JobFailed, JobState, RetryPolicy
from qml_nb.server.context import job_context
from qml_nb.testing import assert_enqueued, drain, enqueued


async def test_drain_runs_all_that_waits_in_its_order_and_returns_it_as_it_ended(storage, registry, ran) -> None:
    await storage.enqueue_many([Job("note", [n], priority=n % 2, queue=f"q{n % 3}") for n in range(6)])
    ended = await drain(storage, registry)
    assert ran == [1, 3, 5, 0, 2, 4]
    assert [job.result for job in ended] == ran
    assert {job.state for job in ended} == {JobState.SUCCEEDED}
    assert (len(ended), ended.succeeded, ended.failed) == (6, ended.jobs, [])
    assert await storage.list_servers() == []


async def test_drain_runs_what_jobs_enqueue(storage, registry, ran) -> None:
    @registry.task
    async def down(n: int) -> None:
        ran.append(n)
        if n:
            await storage.enqueue(Job("down", [n - 1]))

    await storage.enqueue(Job("down", [3]))
    assert len(await drain(storage, registry)) == 4
    assert ran == [3, 2, 1, 0]


async def test_drain_leaves_other_queues_and_paused_ones_alone(storage, registry, ran) -> None:
    await storage.enqueue_many([Job("note", [queue], queue=queue) for queue in ("a", "b", "c")])
    await storage.pause_queue("b")
    await drain(storage, registry, "a", "b")
    assert ran == ["a"]
    assert [job.queue for job in await enqueued(storage)] == ["b", "c"]


async def test_drain_raises_a_failed_job_when_all_have_run(storage, registry, ran) -> None:
    await storage.enqueue_many(
        [Job("note", [1]), Job("fail", ["no stamp"], queue="mail"), Job("gone"), Job("note", [2])]
    )
    with pytest.raises(JobFailed, match="LookupError: no stamp") as failed:
        await drain(storage, registry)
    assert ran == [1, "no stamp", 2]
    assert failed.value.__notes__[0].startswith("fail('no stamp') in queue 'mail', attempt 1: LookupError: no stamp")
    assert "raise LookupError(why)" in failed.value.__notes__[0]
    assert failed.value.__notes__[1].startswith("gone() in queue 'default', attempt 1: qml_nb.errors.UnknownMethod")


async def test_drain_returns_failed_jobs_on_demand(storage, registry, ran) -> None:
    await storage.enqueue_many([Job("fail", ["x"]), Job("note", [1])])
    ended = await drain(storage, registry, raising=False)
    assert ([job.args for job in ended.failed], [job.args for job in ended.succeeded]) == ([["x"]], [[1]])
    assert repr(ended) == "<Ended: 1 succeeded, 1 failed>"


async def test_drain_leaves_what_is_scheduled_or_awaits_its_retry(storage, registry, ran) -> None:
    later, again = Job("note", [1]), Job("fail", ["x"], max_retries=1)
    await storage.schedule(later, delay=3600)
    await storage.enqueue(again)
    assert len(await drain(storage, registry, retry=RetryPolicy.fixed(3600))) == 0
    assert [(await storage.get(job.id)).state for job in (later, again)] == ["scheduled", "awaiting_retry"]


async def test_drain_runs_what_is_due_by_now(storage, registry, ran) -> None:
    await storage.schedule(Job("note", ["due"]), at=datetime.now(UTC) - timedelta(seconds=1))
    await storage.enqueue(Job("fail", ["again"], max_retries=1))
    ended = await drain(storage, registry, retry=RetryPolicy.fixed(0), raising=False)
    assert sorted(map(str, ran)) == ["again", "again", "due"]
    assert len(ended) == 2


async def test_drain_runs_what_is_scheduled_and_retries_at_once_on_demand(storage, registry, ran) -> None:
    attempts = []

    @registry.task(retry=RetryPolicy.fixed(3600))
    async def flaky() -> str:
        attempts.append(job_context().attempt)
        if len(attempts) < 3:
            raise OSError("not yet")
        return "well"

    await storage.schedule(Job("flaky", max_retries=2), delay=86_400)
    await storage.enqueue(Job("fail", ["x"], max_retries=3, retry=RetryPolicy.exponential(600)))
    ended = await drain(storage, registry, scheduled=True, raising=False)
    assert attempts == [1, 2, 3]
    assert ran == ["x"] * 4
    assert {job.method: (job.state.value, job.attempt, job.result) for job in ended} == {
        "flaky": ("succeeded", 3, "well"),
        "fail": ("failed", 4, None),
    }


async def test_drain_runs_what_awaits_its_retry_on_demand(storage, registry, ran) -> None:
    await storage.enqueue(Job("fail", ["x"], max_retries=1))
    assert len(await drain(storage, registry, retry=RetryPolicy.fixed(3600))) == 0
    with pytest.raises(JobFailed):
        await drain(storage, registry, scheduled=True)


async def test_what_jobs_schedule_stays_scheduled(storage, registry, ran) -> None:
    @registry.task
    async def daily() -> None:
        ran.append("ran")
        await storage.schedule(Job("daily"), delay=86_400)

    await storage.schedule(Job("daily"), delay=86_400)
    await drain(storage, registry, scheduled=True)
    assert ran == ["ran"]
    await assert_enqueued(storage, "daily", scheduled_in=86_400, times=1)


async def test_drain_says_which_jobs_do_not_end(storage, registry) -> None:
    @registry.task
    async def hang() -> None:
        await asyncio.sleep(3600)

    await storage.enqueue_many([Job("hang", queue="mail"), Job("hang")])
    with pytest.raises(TimeoutError) as late:
        await drain(storage, registry, timeout=0.3)
    said = str(late.value)
    assert said.startswith("jobs have not ended after 0.3 s:\n")
    assert "processing: hang() in queue 'mail'" in said
    assert "enqueued: hang() in queue 'default'" in said
    assert (await storage.get_job_counts())[JobState.PROCESSING] == 0


async def test_drain_runs_jobs_side_by_side_on_demand(storage, registry) -> None:
    barrier = asyncio.Barrier(3)
    registry.register("meet", barrier.wait)
    await storage.enqueue_many([Job("meet") for _ in range(3)])
    assert len(await drain(storage, registry, worker_count=3)) == 3
