"""No more jobs of a queue run at a time than its concurrency says."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.conftest import Connect
from tests.contract.states import bring_to, claim, claim_ids, ids, put
from tests.contract.test_wait import waiting, woken


async def test_no_more_are_handed_out_than_may_run(storage: Storage) -> None:
    await storage.configure_queue("a", concurrency=2)
    jobs = await put(storage, 4, queue="a")

    assert await claim_ids(storage, 1) == ids(jobs[:1])
    assert await claim_ids(storage, 10) == ids(jobs[1:2])
    assert await claim_ids(storage, 10) == []


async def test_every_connection_counts(storage: Storage, connect: Connect) -> None:
    async with await connect() as other:
        await storage.configure_queue("a", concurrency=2)
        jobs = await put(other, 3, queue="a")

        assert await claim_ids(other, 1) + await claim_ids(storage, 2) == ids(jobs[:2])


async def test_other_queues_give_as_ever_and_order_is_kept_over_all(storage: Storage) -> None:
    await storage.configure_queue("a", concurrency=2)
    high = await put(storage, 3, queue="a", priority=9)
    low = await put(storage, 3, queue="b")
    middle = await put(storage, 1, queue="c", priority=5)

    assert await claim_ids(storage, 4) == ids(high[:2] + middle + low[:1])
    assert await claim_ids(storage, 4) == ids(low[1:])


async def test_what_runs_already_counts_and_may_be_more_than_the_new_bound(storage: Storage) -> None:
    jobs = await put(storage, 4, queue="a")
    first, second, _ = [await claim(storage) for _ in range(3)]

    await storage.configure_queue("a", concurrency=2)

    await storage.complete(first, now=NOW)
    assert await claim_ids(storage) == []
    await storage.complete(second, now=NOW)
    assert await claim_ids(storage) == ids(jobs[3:])


async def test_a_locked_job_takes_no_turn(storage: Storage) -> None:
    await storage.configure_queue("a", concurrency=1)
    locked, free = await put(storage, 2, queue="a")
    await storage.try_acquire_job_lock(locked.id, "owner", 60, now=NOW)

    assert await claim_ids(storage) == [free.id]


async def test_only_what_has_a_turn_is_shown(storage: Storage) -> None:
    await storage.configure_queue("a", concurrency=2)
    jobs = await put(storage, 3, queue="a", priority=1)
    other = await put(storage, 1, queue="b")

    assert await storage.get_available_jobs() == jobs[:2] + other
    await claim(storage, queues=["a"])
    assert await storage.get_available_jobs() == jobs[1:2] + other
    await claim(storage, queues=["a"])
    assert await storage.get_available_jobs() == other


async def lose_lease(storage: Storage, job: Job) -> None:
    await storage.sweep(now=at(31))


async def move_away(storage: Storage, job: Job) -> None:
    await storage.update(job.replace(queue="elsewhere"))


FREE: dict[str, Callable[[Storage, Job], Awaitable[Any]]] = {
    "complete": lambda storage, job: storage.complete(job, now=NOW),
    "fail": lambda storage, job: storage.fail(job, "it broke", now=NOW),
    "retry": lambda storage, job: storage.retry(job, 60, now=NOW),
    "hand back": lambda storage, job: storage.hand_back(job, now=NOW),
    "cancel": lambda storage, job: storage.cancel(job.id, now=NOW),
    "delete": lambda storage, job: storage.delete(job.id),
    "lose lease": lose_lease,
    "move away": move_away,
}


@pytest.mark.parametrize("way", FREE)
async def test_however_a_job_ceases_to_run_another_one_may_and_who_waits_is_woken(storage: Storage, way: str) -> None:
    await storage.configure_queue("a", concurrency=1)
    await put(storage, queue="a", priority=1)
    running = await claim(storage)
    jobs = await put(storage, 2, queue="a", priority=2)
    task = await waiting(storage, ["a"])

    await FREE[way](storage, running)

    assert await woken(task) is True
    assert await claim_ids(storage, queues=["a"]) == ids(jobs[:1])


async def test_jobs_without_a_turn_are_no_work(storage: Storage) -> None:
    await storage.configure_queue("default", concurrency=1)
    await bring_to(storage, JobState.PROCESSING)
    task = await waiting(storage)

    await put(storage)

    assert await storage.wait(timeout=0.02) is False
    assert not task.done()
    task.cancel()


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}])
async def test_a_wider_bound_wakes_who_waits(storage: Storage, options: dict[str, Any]) -> None:
    await storage.configure_queue("a", concurrency=1)
    jobs = await put(storage, 2, queue="a")
    await claim(storage)
    task = await waiting(storage, ["a"])

    await storage.configure_queue("a", **options)

    assert await woken(task) is True
    assert await claim_ids(storage) == ids(jobs[1:])
