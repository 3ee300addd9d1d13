"""Counts are exact, by queue and state, after whatever happened."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest

from qml_nb.errors import JobNotFound
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import at
from tests.contract.states import ALL, bring_to, put

NONE = dict.fromkeys(JobState, 0)


async def test_an_empty_storage_counts_zero_in_every_state(storage: Storage) -> None:
    assert await storage.get_job_counts() == NONE
    assert await storage.get_job_counts("no such queue") == NONE
    assert await storage.get_queue_counts() == {}


@pytest.mark.parametrize("state", JobState)
async def test_a_job_counts_in_the_state_that_it_is_in(storage: Storage, state: JobState) -> None:
    await bring_to(storage, state, queue="q")

    assert await storage.get_job_counts() == NONE | {state: 1}
    assert await storage.get_job_counts("q") == NONE | {state: 1}
    assert await storage.get_job_counts("default") == NONE
    assert await storage.get_queue_counts() == {"q": NONE | {state: 1}}


async def test_queues_are_counted_apart_and_by_name(storage: Storage) -> None:
    await put(storage, 3, queue="b")
    await put(storage, 2, queue="a")

    counts = await storage.get_queue_counts()

    assert list(counts) == ["a", "b"]
    assert counts == {"a": NONE | {JobState.ENQUEUED: 2}, "b": NONE | {JobState.ENQUEUED: 3}}
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 5


def ways_to_end(storage: Storage, job: Job, now: datetime) -> list[Callable[[], Awaitable[Any]]]:
    """What may become of a claimed job."""
    return [
        lambda: storage.complete(job, now=now),
        lambda: storage.fail(job, "it broke", now=now),
        lambda: storage.retry(job, 10, now=now),
        lambda: storage.hand_back(job, now=now),
        lambda: storage.renew(job, 20, now=now),
    ]


def ways_to_go_on(storage: Storage, job: Job, new: Job, now: datetime) -> list[Callable[[], Awaitable[Any]]]:
    """What may be done with any job, stored or not."""
    return [
        lambda: storage.enqueue(new),
        lambda: storage.enqueue(job),
        lambda: storage.schedule(new, delay=15, now=now),
        lambda: storage.cancel(job.id, now=now),
        lambda: storage.requeue(job.id, now=now),
        lambda: storage.delete(job.id),
        lambda: storage.update(job.replace(queue=new.queue, priority=new.priority)),
        lambda: storage.sweep(now=now),
    ]


@pytest.mark.parametrize("seed", range(5))
async def test_counts_are_exact_after_a_long_history(storage: Storage, seed: int) -> None:
    dice = random.Random(seed)
    known = await put(storage, 20, queue="a")

    for now in map(at, range(500)):
        for job in await storage.fetch_available_jobs_atomic("worker", dice.randint(1, 2), lease=20, now=now):
            await dice.choice(ways_to_end(storage, job, now))()
        known.append(Job("work", queue=dice.choice("abc"), priority=dice.randrange(2)))
        with suppress(JobNotFound):
            await dice.choice(ways_to_go_on(storage, dice.choice(known), known[-1], now))()

    jobs = await storage.list(limit=ALL)
    assert jobs
    expected = Counter((job.queue, job.state) for job in jobs)
    counts = await storage.get_queue_counts()
    assert {(queue, state): many for queue, of in counts.items() for state, many in of.items() if many} == expected
    assert len(await storage.get_available_jobs(ALL)) == (await storage.get_job_counts())[JobState.ENQUEUED]
