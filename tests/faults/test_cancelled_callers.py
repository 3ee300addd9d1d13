"""Callers that are cancelled harm no other, and no connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from qml_nb import Job, JobState, Storage
from tests.faults.conftest import Connect
from tests.faults.load import LONG

CALLERS = 2_000


async def cancel_some(tasks: list[asyncio.Task], seed: int) -> list[asyncio.Task]:
    """Cancel every other task at any moment of the calls; returns the others once they have ended."""
    random, doomed = Random(seed), tasks[::2]
    random.shuffle(doomed)
    for task in doomed:
        task.cancel()
        if random.random() < 0.2:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    return tasks[1::2]


async def test_the_others_get_their_own_answers(storage: Storage) -> None:
    there = [Job("work", [number]) for number in range(CALLERS // 4)]
    await storage.enqueue_many(there)
    jobs = [Job("work", [number]) for number in range(CALLERS)]
    jobs[1::4] = there  # their callers are told that they were there
    for seed in range(2):
        calls = [asyncio.create_task(storage.enqueue(job)) for job in jobs]
        await asyncio.sleep(0)
        for number, call in enumerate(await cancel_some(calls, seed)):
            assert call.result() is (seed == 0 and number % 2 == 1)
    found = await storage.backend.get([job.id for job in jobs[1::2]])
    assert [job.id for job in found] == [job.id for job in jobs[1::2]]


async def test_cancelled_readers_leave_no_answer_on_a_connection(storage: Storage) -> None:
    jobs = [Job("work", [number]) for number in range(500)]
    await storage.enqueue_many(jobs)
    for seed in range(4):
        calls = [asyncio.create_task(storage.get(job.id), name=job.id) for job in jobs]
        for _ in range(seed):
            await asyncio.sleep(0.002)
        for call in await cancel_some(calls, seed):
            assert call.result().id == call.get_name()
    assert [(await storage.get(job.id)).id for job in jobs[:50]] == [job.id for job in jobs[:50]]


async def test_cancelled_claims_come_back_and_nothing_is_handed_out_twice(storage: Storage) -> None:
    jobs = [Job("work", [number]) for number in range(500)]
    await storage.enqueue_many(jobs)
    calls = [
        asyncio.create_task(storage.fetch_available_jobs_atomic("worker", 5, lease=0.1 if number % 2 == 0 else 600))
        for number in range(100)
    ]
    await asyncio.sleep(0.002)
    kept = [job.id for call in await cancel_some(calls, 0) for job in call.result()]
    assert len(kept) == len(set(kept)) == 250
    left: list[str] = []
    async with asyncio.timeout(30):
        while len(left) < 250:
            await storage.sweep()
            left += [job.id for job in await storage.fetch_available_jobs_atomic("other", 500, lease=600)]
    assert set(left) | set(kept) == {job.id for job in jobs}
    assert (await storage.get_job_counts())[JobState.PROCESSING] == 500


def few_connections(connect: Connect, url: str) -> Storage:
    """A storage that would soon miss a connection."""
    if url.startswith("postgresql:"):
        return connect(url, max_connections=2, connect_timeout=10)
    return connect(url, pool_size=2)


async def all_states(storage: Storage) -> Counter[JobState]:
    """How many jobs there are by state, as they are counted, and as they are."""
    found = await storage.list(limit=10_000)
    counted = {state: many for state, many in (await storage.get_job_counts()).items() if many}
    states = Counter(job.state for job in found)
    assert counted == states
    return states


async def test_whatever_they_were_about_counts_stay_exact_and_connections_whole(connect: Connect, url: str) -> None:
    storage = few_connections(connect, url)
    jobs = [Job("work", [number], max_retries=9) for number in range(400)]
    for seed in range(4):
        await cancel_some([asyncio.create_task(storage.enqueue(job)) for job in jobs], seed)
        assert sum((await all_states(storage)).values()) >= len(jobs) // 2
    await storage.enqueue_many(jobs)
    claims = [asyncio.create_task(storage.fetch_available_jobs_atomic("worker", 4, lease=600)) for _ in range(100)]
    await asyncio.sleep(0.003)
    claimed = [job for call in await cancel_some(claims, 1) for job in call.result()]
    await all_states(storage)

    calls = [asyncio.create_task(settle(storage, job)) for job in claimed]
    assert all(call.result() for call in await cancel_some(calls, 2))
    found = await storage.backend.get([job.id for job in claimed[1::2]])
    assert [job.state for job in found] == [end_of(job) for job in claimed[1::2]]
    await all_states(storage)
    assert len(await asyncio.wait_for(asyncio.gather(*(storage.get(job.id) for job in jobs)), LONG)) == len(jobs)


def end_of(job: Job) -> JobState:
    """What becomes of it."""
    return (JobState.SUCCEEDED, JobState.FAILED, JobState.ENQUEUED, JobState.AWAITING_RETRY)[job.args[0] % 4]


async def settle(storage: Storage, job: Job) -> bool:
    end = end_of(job)
    if end is JobState.FAILED:
        return await storage.fail(job, "broken")
    if end is JobState.AWAITING_RETRY:
        return await storage.retry(job, 600, "broken")
    return await (storage.complete(job) if end is JobState.SUCCEEDED else storage.hand_back(job))


async def test_cancelled_waiters_take_no_wake_up_with_them(connect: Connect, url: str) -> None:
    storage = few_connections(connect, url)
    for seed in range(3):
        waiters = [asyncio.create_task(storage.wait(timeout=LONG)) for _ in range(40)]
        await asyncio.sleep(0.1 + 0.01 * seed)
        pushes = [asyncio.create_task(storage.enqueue(Job("work"))) for _ in range(40)]
        left = await cancel_some(waiters, seed)
        assert [waiter.result() for waiter in left] == [True] * 20
        await asyncio.gather(*pushes)
        for job in await storage.fetch_available_jobs_atomic("worker", 1_000):
            await storage.complete(job)
