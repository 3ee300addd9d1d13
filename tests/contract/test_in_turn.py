"""A claim may take the queues one after the other, whatever the priorities of their jobs."""

from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.states import ALL, ids, put


async def in_turn(storage: Storage, queues: list[str] | None, limit: int = ALL) -> list[str]:
    """Claim, one queue after the other, and return the ids."""
    return ids(await storage.fetch_available_jobs_atomic("worker", limit, queues, in_turn=True, now=NOW))


async def test_the_first_queue_comes_first_whatever_the_priorities(storage: Storage) -> None:
    urgent = await put(storage, 2, queue="a", priority=9)
    first = await put(storage, 2, queue="b") + await put(storage, 1, queue="b", priority=1)

    assert await in_turn(storage, ["b", "a"]) == ids([first[2], *first[:2], *urgent])


async def test_the_next_queue_fills_what_the_first_one_leaves(storage: Storage) -> None:
    second = await put(storage, 3, queue="a", priority=9)
    first = await put(storage, 2, queue="b")

    assert await in_turn(storage, ["b", "c", "a"], 4) == ids([*first, *second[:2]])
    assert await in_turn(storage, ["b", "c", "a"], 4) == ids(second[2:])


async def test_one_at_a_time_the_first_queue_is_emptied_first(storage: Storage) -> None:
    jobs = {name: await put(storage, 2, queue=name) for name in "abc"}

    claimed = [job_id for _ in range(7) for job_id in await in_turn(storage, ["c", "a", "b"], 1)]

    assert claimed == ids(jobs["c"] + jobs["a"] + jobs["b"])


async def test_without_it_the_priorities_count(storage: Storage) -> None:
    low = await put(storage, 1, queue="b")
    high = await put(storage, 1, queue="a", priority=9)

    claimed = await storage.fetch_available_jobs_atomic("worker", 10, ["b", "a"], now=NOW)

    assert ids(claimed) == ids(high + low)


async def test_of_all_queues_none_is_the_first(storage: Storage) -> None:
    low = await put(storage, 1, queue="a")
    high = await put(storage, 1, queue="b", priority=9)

    assert await in_turn(storage, None) == ids(high + low)


async def test_a_paused_queue_is_passed_over(storage: Storage) -> None:
    await put(storage, 2, queue="a")
    jobs = await put(storage, 2, queue="b")
    await storage.pause_queue("a")

    assert await in_turn(storage, ["a", "b"]) == ids(jobs)


async def test_a_job_that_somebody_locked_is_passed_over_and_keeps_its_place(storage: Storage) -> None:
    locked, free = await put(storage, 2, queue="a")
    [other] = await put(storage, queue="b")
    await storage.try_acquire_job_lock(locked.id, "owner", 60, now=NOW)

    assert await in_turn(storage, ["a", "b"]) == ids([free, other])

    await storage.release_job_lock(locked.id, "owner")
    assert await in_turn(storage, ["a", "b"]) == [locked.id]


async def test_a_queue_without_turns_leaves_the_rest_to_the_next(storage: Storage) -> None:
    await storage.configure_queue("a", concurrency=2)
    bounded = await put(storage, 3, queue="a")
    free = await put(storage, 3, queue="b")

    assert await in_turn(storage, ["a", "b"], 4) == ids(bounded[:2] + free[:2])


@pytest.mark.parametrize("in_turn", [1, None, "yes"])
async def test_what_is_neither_true_nor_false_is_refused(storage: Storage, in_turn: Any) -> None:
    with pytest.raises(InvalidValue, match="expected in_turn to be True or False"):
        await storage.fetch_available_jobs_atomic("worker", 1, in_turn=in_turn)
