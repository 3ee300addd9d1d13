"""Who waits for a job's result is told at once, whoever ran it and however it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from qml_nb.errors import InvalidValue, JobFailed, JobNotFound
from qml_nb.job import Job, Report
from qml_nb.states import DROPPED, LOST_LEASE, JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.conftest import Connect
from tests.contract.states import bring_to, claim, put
from tests.contract.test_watch import claimed, complete, drop, fail, lose_leases

AT_ONCE = 3.0
"""Seconds below the five after which it is looked whether a message was lost."""


async def awaited(storage: Storage, job: Job, **options: Any) -> asyncio.Task[Any]:
    """A task that has begun to wait for the result."""
    task = asyncio.create_task(storage.result(job.id, **options))
    await asyncio.sleep(0.02)
    assert not task.done()
    return task


async def at_once(task: asyncio.Task[Any]) -> Any:
    """What a waiting task returns or raises, as soon as it is told."""
    return await asyncio.wait_for(task, AT_ONCE)


async def report(storage: Storage, job: Job, progress: bytes) -> None:
    assert await storage.backend.report([Report(job.id, job.claim_id, progress)]) == [True]


# -- a result


@pytest.mark.parametrize("value", [None, 0, [], {"answer": [2**53 + 1, "ü"]}], ids=repr)
async def test_a_job_that_has_succeeded_has_a_result(storage: Storage, value: Any) -> None:
    [job] = await put(storage)
    await storage.complete(await claim(storage), value, now=NOW)

    assert await storage.result(job.id) == value


async def test_a_job_that_succeeds_while_one_waits_is_told_at_once(storage: Storage, connect: Connect) -> None:
    [job] = await put(storage)
    task = await awaited(storage, job, timeout=60)

    async with await connect() as other:
        await complete(other, job)

        assert await at_once(task) == 42


async def test_a_job_that_runs_several_times_is_waited_for_to_the_end(storage: Storage) -> None:
    [job] = await put(storage)
    task = await awaited(storage, job)
    await storage.retry(await claimed(storage, job), 0, "it broke")
    await storage.sweep()
    await storage.hand_back(await claimed(storage, job))
    running = await claimed(storage, job)
    await report(storage, running, b"1")
    await asyncio.sleep(0.02)
    assert not task.done()

    await storage.complete(running, "at last")

    assert await at_once(task) == "at last"


async def test_many_may_wait_for_one_and_one_for_many(storage: Storage) -> None:
    jobs = await put(storage, 30)
    tasks = [asyncio.create_task(storage.result(job.id)) for job in jobs for _ in range(2)]
    await asyncio.sleep(0.02)

    for job in await storage.fetch_available_jobs_atomic("worker", 30):
        await storage.complete(job, job.args[0])

    assert await asyncio.wait_for(asyncio.gather(*tasks), AT_ONCE) == [job.args[0] for job in jobs for _ in range(2)]


async def test_each_event_loop_is_told(storage: Storage, connect: Connect) -> None:
    [job] = await put(storage)

    async def wait() -> Any:
        return await (await connect()).result(job.id)

    threads = [asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(wait()))) for _ in range(2)]
    task = await awaited(storage, job)
    await complete(storage, job)

    assert await asyncio.wait_for(asyncio.gather(task, *threads), AT_ONCE) == [42] * 3


async def test_code_without_await_waits_too(storage: Storage) -> None:
    [job] = await put(storage)
    waiting = asyncio.create_task(asyncio.to_thread(storage.sync.result, job.id, timeout=30))
    await asyncio.sleep(0.02)

    await complete(storage, job)

    assert await at_once(waiting) == 42


# -- none


@pytest.mark.parametrize(("state", "error"), [(JobState.FAILED, "it broke"), (JobState.DELETED, "")])
async def test_a_job_that_has_failed_or_was_deleted_has_no_result(
    storage: Storage, state: JobState, error: str
) -> None:
    job = await bring_to(storage, state)

    with pytest.raises(JobFailed) as failure:
        await storage.result(job.id)

    assert (failure.value.job_id, failure.value.state, failure.value.error) == (job.id, state, error)


BAD_ENDS: dict[str, tuple[Callable[[Storage, Job], Awaitable[Any]], str, str]] = {
    "fail": (fail, "failed", "it broke"),
    "lose leases": (lose_leases, "failed", LOST_LEASE),
    "cancel": (lambda storage, job: storage.cancel(job.id), "deleted", ""),
    "drop": (drop, "deleted", DROPPED),
}


@pytest.mark.parametrize("way", BAD_ENDS)
async def test_a_job_that_ends_without_a_result_is_told_at_once(storage: Storage, way: str) -> None:
    [job] = await put(storage)
    task = await awaited(storage, job)
    end, state, error = BAD_ENDS[way]

    await end(storage, job)

    with pytest.raises(JobFailed) as failure:
        await at_once(task)
    assert (failure.value.state, failure.value.error) == (state, error)


async def test_a_job_that_is_not_there_has_no_result(storage: Storage) -> None:
    with pytest.raises(JobNotFound, match="no job 'no such job' in storage"):
        await storage.result("no such job", timeout=60)


async def test_a_job_that_is_erased_while_one_waits_is_told_at_once(storage: Storage) -> None:
    [job] = await put(storage)
    task = await awaited(storage, job)

    await storage.delete(job.id)

    with pytest.raises(JobNotFound):
        await at_once(task)


async def test_the_wait_ends_when_its_time_is_up_and_another_one_goes_on(storage: Storage) -> None:
    [job] = await put(storage)
    task = await awaited(storage, job)

    with pytest.raises(TimeoutError, match=f"job '{job.id}' has not ended after 0.05 s"):
        await storage.result(job.id, timeout=0.05)

    await complete(storage, job)
    assert await at_once(task) == 42


async def test_who_no_longer_waits_hinders_nobody(storage: Storage) -> None:
    [job] = await put(storage)
    first, second = await awaited(storage, job), await awaited(storage, job)

    first.cancel()
    await complete(storage, job)

    assert await at_once(second) == 42


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
async def test_a_bad_timeout_is_refused(storage: Storage, timeout: Any) -> None:
    with pytest.raises(InvalidValue, match="expected timeout to be"):
        await storage.result("id", timeout=timeout)


# -- followed on the way


async def test_a_job_is_followed_over_its_progress_to_its_end(storage: Storage, connect: Connect) -> None:
    async with await connect() as other:
        [job] = await put(storage)
        running = await claim(other)
        seen = []

        async with aclosing(storage.follow(job.id)) as snapshots, asyncio.timeout(4 * AT_ONCE):
            seen.append(await anext(snapshots))
            for progress in (b"1", b"2"):
                await report(other, running, progress)
                seen.append(await anext(snapshots))
            await other.complete(running, "done", now=NOW)
            seen += [snapshot async for snapshot in snapshots]

        assert [(job.state.value, job.progress, job.result) for job in seen] == [
            ("processing", None, None),
            ("processing", 1, None),
            ("processing", 2, None),
            ("succeeded", 2, "done"),
        ]
        assert seen[-1] == await storage.get(job.id)


async def test_what_is_no_progress_is_not_seen(storage: Storage) -> None:
    [job] = await put(storage)

    async with aclosing(storage.follow(job.id)) as snapshots, asyncio.timeout(AT_ONCE):
        assert await anext(snapshots) == job
        following = asyncio.create_task(anext(snapshots))
        await storage.retry(await claimed(storage, job), 0)
        await storage.sweep()
        await report(storage, await claimed(storage, job), b"0.5")
        assert (await following).progress == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED])
async def test_a_job_that_has_ended_is_seen_once(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state)

    assert [snapshot async for snapshot in storage.follow(job.id)] == [job]


async def test_a_job_that_is_not_there_can_not_be_followed(storage: Storage) -> None:
    with pytest.raises(JobNotFound):
        await anext(storage.follow("no such job"))


async def test_a_job_that_is_erased_is_followed_no_longer(storage: Storage) -> None:
    [job] = await put(storage)

    async with aclosing(storage.follow(job.id)) as snapshots, asyncio.timeout(AT_ONCE):
        await anext(snapshots)
        await storage.delete(job.id)
        with pytest.raises(JobNotFound):
            await anext(snapshots)


async def test_messages_that_make_no_sense_hinder_nobody(storage: Storage) -> None:
    [job] = await put(storage)
    task = await awaited(storage, job)

    for message in (b"", b"\xff\0", b"no such job", job.id.encode(), b"x" * 5_000):
        await storage.publish("qml:watched", message)
    await asyncio.sleep(0.02)
    assert not task.done()
    await complete(storage, job)

    assert await at_once(task) == 42


@pytest.mark.parametrize("method", ["get", "result", "cancel", "requeue", "delete"])
@pytest.mark.parametrize("wrong", [Job("add"), None, 5, ["id"]])
async def test_what_is_no_id_is_refused_with_what_to_write(storage: Storage, method: str, wrong: Any) -> None:
    with pytest.raises(InvalidValue, match=r"expected job_id to be the id of a job, got .*; write job\.id"):
        await getattr(storage, method)(wrong)
