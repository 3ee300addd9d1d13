"""Inline: enqueue returns when the job has ended."""

from __future__ import annotations

import asyncio

import pytest

from qml_nb import Job, JobFailed, RetryPolicy
from qml_nb.testing import assert_enqueued, inline


async def test_inline_returns_from_enqueue_when_the_job_has_ended(storage, registry, ran) -> None:
    async with inline(storage, registry) as ended:
        job = Job("note", [1])
        assert await storage.enqueue(job) is True
        assert ran == [1]
        assert (await storage.get(job.id)).result == 1
        assert await storage.enqueue(job) is False
        assert await storage.enqueue_many([Job("note", [2]), Job("note", [3])]) == 2
        assert sorted(ran) == [1, 2, 3]
        assert sorted(job.result for job in ended) == [1, 2, 3]
    await storage.enqueue(Job("note", [4]))
    await assert_enqueued(storage, "note", args=[4], times=1)
    assert len(ran) == 3


async def test_inline_runs_what_jobs_enqueue_before_it_returns(storage, registry, ran) -> None:
    @registry.task
    async def tree(depth: int) -> None:
        ran.append(depth)
        if depth:
            await storage.enqueue(Job("tree", [depth - 1]))
            await storage.enqueue_many([Job("tree", [depth - 1])])

    await storage.configure_queue("default", concurrency=1)  # a job that waited for its own would wait for ever
    async with inline(storage, registry) as ended:
        await storage.enqueue(Job("tree", [2]))
        assert sorted(ran) == [0, 0, 0, 0, 1, 1, 2]
        assert len(ended) == 7


async def test_inline_raises_when_the_job_or_one_that_it_enqueued_fails(storage, registry, ran) -> None:
    @registry.task
    async def parent() -> None:
        await storage.enqueue(Job("fail", ["child"]))

    async with inline(storage, registry) as ended:
        with pytest.raises(JobFailed, match="LookupError: alone"):
            await storage.enqueue(Job("fail", ["alone"]))
        with pytest.raises(JobFailed, match="LookupError: child"):
            await storage.enqueue(Job("parent"))
        await storage.enqueue(Job("note", [1]))
    assert [job.method for job in ended] == ["fail", "parent", "fail", "note"]


async def test_inline_does_not_raise_on_demand(storage, registry, ran) -> None:
    async with inline(storage, registry, raising=False) as ended:
        await storage.enqueue(Job("fail", ["x"]))
        assert [job.error.partition("\n")[0] for job in ended.failed] == ["LookupError: x"]


async def test_inline_retries_at_once(storage, registry, ran) -> None:
    async with inline(storage, registry, retry=RetryPolicy.fixed(3600)):
        with pytest.raises(JobFailed):
            await storage.enqueue(Job("fail", ["x"], max_retries=2))
    assert ran == ["x"] * 3


async def test_inline_leaves_what_is_scheduled(storage, registry, ran) -> None:
    async with inline(storage, registry):
        await storage.schedule(Job("note", [1]), delay=3600)
        await assert_enqueued(storage, "note", scheduled_in=3600)
    assert ran == []


async def test_inline_callers_wait_for_their_own_jobs_only(storage, registry) -> None:
    go = asyncio.Event()
    registry.register("hold", go.wait)
    registry.register("let_go", go.set)
    async with inline(storage, registry):
        holding = asyncio.create_task(storage.enqueue(Job("hold")))
        await storage.enqueue(Job("let_go"))
        await holding


async def test_inline_says_which_jobs_do_not_end(storage, registry) -> None:
    await storage.pause_queue("mail")
    async with inline(storage, registry, timeout=0.2):
        with pytest.raises(TimeoutError, match=r"after 0.2 s:\n  enqueued: send\(1\) in queue 'mail'"):
            await storage.enqueue(Job("send", [1], queue="mail"))


async def test_inline_ends_with_the_jobs_that_were_cancelled(storage, registry) -> None:
    await storage.pause_queue("mail")
    job = Job("send", queue="mail")
    async with inline(storage, registry) as ended:
        enqueueing = asyncio.create_task(storage.enqueue(job))
        while not await storage.cancel(job.id):
            await asyncio.sleep(0.001)
        assert await enqueueing is True
    assert [each.state for each in ended] == ["deleted"]
    assert ended.failed == []


async def test_inline_within_inline_ends_as_it_began(storage, registry, ran) -> None:
    async with inline(storage, registry):
        async with inline(storage, registry):
            await storage.enqueue(Job("note", [1]))
        await storage.enqueue(Job("note", [2]))
        assert ran == [1, 2]
    await storage.enqueue(Job("note", [3]))
    assert ran == [1, 2]
