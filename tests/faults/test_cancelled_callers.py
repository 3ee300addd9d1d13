"""Callers that are cancelled harm no other, and no connection."""

from __future__ import annotations

import asyncio
from random import Random

from qml_nb import Job, JobState, RedisStorage

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


async def test_the_others_get_their_own_answers(storage: RedisStorage) -> None:
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


async def test_cancelled_readers_leave_no_answer_on_a_connection(storage: RedisStorage) -> None:
    jobs = [Job("work", [number]) for number in range(500)]
    await storage.enqueue_many(jobs)
    for seed in range(4):
        calls = [asyncio.create_task(storage.get(job.id), name=job.id) for job in jobs]
        for _ in range(seed):
            await asyncio.sleep(0.002)
        for call in await cancel_some(calls, seed):
            assert call.result().id == call.get_name()
    assert [(await storage.get(job.id)).id for job in jobs[:50]] == [job.id for job in jobs[:50]]


async def test_cancelled_claims_come_back_and_nothing_is_handed_out_twice(storage: RedisStorage) -> None:
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
