"""Jobs of a queue are handed out no faster than its rate says, after a pause as many at once as its burst."""

import asyncio
from contextlib import suppress

from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.conftest import Connect
from tests.contract.states import claim, claim_ids, ids, put
from tests.contract.test_wait import waiting, woken

SLOW = 0.001
"""Jobs a second of which a second one is handed out in no test."""


async def test_one_is_handed_out_each_time_that_a_turn_is_over(storage: Storage) -> None:
    await storage.configure_queue("a", rate=2)
    jobs = await put(storage, 9, queue="a")

    instants = (0, 0, 0.25, 0.5, 0.75, 1.0, 1.0)
    claimed = [await claim_ids(storage, 5, now=now) for now in instants]

    assert claimed == [[jobs[0].id], [], [], [jobs[1].id], [], [jobs[2].id], []]


async def test_a_late_claim_moves_the_next_turn(storage: Storage) -> None:
    await storage.configure_queue("a", rate=2)
    await put(storage, 9, queue="a")

    assert [len(await claim_ids(storage, now=now)) for now in (0, 0.75, 1.0, 1.125, 1.25)] == [1, 1, 0, 0, 1]


async def test_after_a_pause_as_many_come_at_once_as_the_burst(storage: Storage) -> None:
    await storage.configure_queue("a", rate=4, burst=3)
    await put(storage, 20, queue="a")

    assert len(await claim_ids(storage, 2, now=0)) == 2
    assert len(await claim_ids(storage, now=0)) == 1
    assert [len(await claim_ids(storage, now=now)) for now in (0.125, 0.25, 0.5)] == [0, 1, 1]
    assert len(await claim_ids(storage, now=1.0)) == 2
    assert len(await claim_ids(storage, now=1_000)) == 3


async def test_a_rate_below_one_a_second_counts_too(storage: Storage) -> None:
    await storage.configure_queue("a", rate=0.25, burst=2)
    await put(storage, 9, queue="a")

    assert [len(await claim_ids(storage, now=now)) for now in (0, 3.5, 4, 7.5, 8)] == [2, 0, 1, 0, 1]


async def test_every_connection_uses_the_same_turns(storage: Storage, connect: Connect) -> None:
    async with await connect() as other:
        await storage.configure_queue("a", rate=1, burst=2)
        jobs = await put(storage, 5, queue="a")

        assert await claim_ids(storage, 1) + await claim_ids(other, 5) + await claim_ids(storage, 5) == ids(jobs[:2])
        assert await claim_ids(other, now=1) == ids(jobs[2:3])


async def test_a_claim_that_finds_nothing_uses_no_turn(storage: Storage) -> None:
    await storage.configure_queue("a", rate=1)
    assert await claim_ids(storage) == []

    jobs = await put(storage, 1, queue="a")

    assert await claim_ids(storage) == ids(jobs)


async def test_one_that_is_handed_back_has_used_its_turn(storage: Storage) -> None:
    await storage.configure_queue("a", rate=1)
    await put(storage, 1, queue="a")
    await storage.hand_back(await claim(storage), now=NOW)

    assert await claim_ids(storage, now=0.5) == []
    assert len(await claim_ids(storage, now=1)) == 1


async def test_a_locked_job_uses_no_turn(storage: Storage) -> None:
    await storage.configure_queue("a", rate=1, burst=2)
    locked, *free = await put(storage, 3, queue="a")
    await storage.try_acquire_job_lock(locked.id, "owner", 60, now=NOW)

    assert await claim_ids(storage) == ids(free)


async def test_other_queues_give_as_ever_and_order_is_kept_over_all(storage: Storage) -> None:
    await storage.configure_queue("a", rate=1, burst=2)
    high = await put(storage, 3, queue="a", priority=9)
    low = await put(storage, 3, queue="b")

    assert await claim_ids(storage, 4) == ids(high[:2] + low[:2])
    assert await claim_ids(storage, 4, now=1) == ids(high[2:] + low[2:])


async def test_a_bound_of_those_that_run_holds_beside_it(storage: Storage) -> None:
    await storage.configure_queue("a", rate=1, burst=3, concurrency=2)
    await put(storage, 9, queue="a")
    claimed = await storage.fetch_available_jobs_atomic("worker", 5, now=NOW)
    assert len(claimed) == 2

    for job in claimed:
        await storage.complete(job, now=NOW)

    assert len(await claim_ids(storage)) == 1


async def test_a_new_configuration_begins_with_all_turns_free(storage: Storage) -> None:
    await storage.configure_queue("a", rate=SLOW, burst=2)
    await put(storage, 9, queue="a")
    assert len(await claim_ids(storage)) == 2

    await storage.configure_queue("a", rate=SLOW, burst=3)

    assert len(await claim_ids(storage)) == 3


async def test_without_a_rate_jobs_come_as_ever(storage: Storage) -> None:
    await storage.configure_queue("a", rate=SLOW)
    await put(storage, 9, queue="a")
    await claim(storage)

    await storage.configure_queue("a")

    assert len(await claim_ids(storage)) == 8


# -- on the storage's own clock


async def test_only_what_has_a_turn_is_shown(storage: Storage) -> None:
    await storage.configure_queue("a", rate=SLOW, burst=2)
    jobs = await put(storage, 3, queue="a")

    assert await storage.get_available_jobs() == jobs[:2]
    await storage.fetch_and_lock_job("worker")
    assert await storage.get_available_jobs() == jobs[1:2]
    await storage.fetch_and_lock_job("worker")
    assert await storage.get_available_jobs() == []


async def test_jobs_without_a_turn_are_no_work(storage: Storage) -> None:
    await storage.configure_queue("a", rate=SLOW)
    await put(storage, 2, queue="a")
    assert await storage.wait(timeout=0) is True
    await storage.fetch_and_lock_job("worker")

    assert await storage.wait(["a"], 0.02) is False
    assert await storage.wait(timeout=0.02) is False


async def test_who_waits_is_woken_by_the_next_turn(storage: Storage) -> None:
    await storage.configure_queue("a", rate=10)
    await put(storage, 2, queue="a")
    await storage.fetch_and_lock_job("worker")

    assert await storage.wait(["b", "a"], 0.5) is True  # no poll is that fast
    assert await storage.fetch_and_lock_job("worker") is not None


async def test_who_waits_is_woken_by_the_next_turn_of_a_job_that_came_before_it(storage: Storage) -> None:
    await storage.configure_queue("a", rate=10)
    await put(storage, 1, queue="a")
    await storage.fetch_and_lock_job("worker")
    waiters = [asyncio.create_task(storage.wait(["a"], 0.5)) for _ in range(2)]
    await asyncio.sleep(0.02)

    [job] = await put(storage, 1, queue="a")

    done, others = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    assert all(task.result() for task in done)
    for task in others:
        task.cancel()
    claimed = await storage.fetch_and_lock_job("worker")
    assert claimed is not None
    assert claimed.id == job.id


async def test_the_next_turn_wakes_another_one_where_the_first_gave_up(storage: Storage) -> None:
    await storage.configure_queue("a", rate=5)
    await put(storage, 1, queue="a")
    await storage.fetch_and_lock_job("worker")
    first, second = await waiting(storage, ["a"]), asyncio.create_task(storage.wait(["a"], 0.6))
    await asyncio.sleep(0.02)
    await put(storage, 1, queue="a")
    await asyncio.sleep(0.02)

    first.cancel()
    with suppress(asyncio.CancelledError):
        await first

    assert await second is True
    assert await storage.fetch_and_lock_job("worker") is not None


async def test_a_lifted_rate_wakes_who_waits(storage: Storage) -> None:
    await storage.configure_queue("a", rate=SLOW)
    await put(storage, 2, queue="a")
    await storage.fetch_and_lock_job("worker")
    task = await waiting(storage, ["a"])

    await storage.configure_queue("a")

    assert await woken(task) is True
