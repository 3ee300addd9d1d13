"""A paused queue gives nothing out; all else goes on."""

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, claim_ids, ids, put


async def test_nothing_is_claimed_shown_or_waited_for(storage: Storage) -> None:
    await put(storage, queue="a")
    await storage.pause_queue("a")

    assert await claim_ids(storage) == await claim_ids(storage, queues=["a"]) == []
    assert await storage.get_available_jobs() == []
    assert await storage.wait(timeout=0) is await storage.wait(["a"], 0) is False


async def test_other_queues_go_on(storage: Storage) -> None:
    await put(storage, queue="a", priority=5)
    [other] = await put(storage, queue="b")
    await storage.pause_queue("a")

    assert await storage.wait(["a", "b"], 0) is True
    assert await claim_ids(storage, queues=["a", "b"]) == [other.id]


async def test_enqueuing_and_counting_go_on(storage: Storage) -> None:
    await storage.pause_queue("a")
    await put(storage, 2, queue="a")

    assert await storage.get_job_counts("a") == dict.fromkeys(JobState, 0) | {JobState.ENQUEUED: 2}


async def test_a_resumed_queue_gives_its_jobs_in_order(storage: Storage) -> None:
    first = await put(storage, 2, queue="a")
    await storage.pause_queue("a")
    second = await put(storage, 2, queue="a")
    await storage.resume_queue("a")

    assert await claim_ids(storage) == ids([*first, *second])


async def test_what_runs_runs_on(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)
    await storage.pause_queue("default")

    assert list(await storage.renew(claimed, 10, now=at(1))) == [True]
    assert await storage.complete(claimed, now=at(2)) is True


async def test_due_jobs_are_promoted_and_lost_leases_reclaimed(storage: Storage) -> None:
    await bring_to(storage, JobState.PROCESSING)
    await bring_to(storage, JobState.SCHEDULED)
    await storage.pause_queue("default")

    swept = await storage.sweep(now=at(100))

    assert (swept.promoted, swept.reclaimed) == (1, 1)
    assert await claim_ids(storage) == []


async def test_pausing_and_resuming_say_whether_they_did(storage: Storage) -> None:
    assert await storage.resume_queue("a") is False
    assert [await storage.pause_queue("a"), await storage.pause_queue("a")] == [True, False]
    assert [await storage.resume_queue("a"), await storage.resume_queue("a")] == [True, False]


async def test_paused_queues_are_listed_by_name(storage: Storage) -> None:
    assert await storage.list_paused_queues() == []
    for queue in ("b", "ü", "a"):
        await storage.pause_queue(queue)
    await storage.resume_queue("b")

    assert await storage.list_paused_queues() == ["a", "ü"]


async def test_a_queue_stays_paused_through_sweeps_though_it_is_empty(storage: Storage) -> None:
    await storage.pause_queue("a")
    await storage.sweep(now=NOW)
    await put(storage, queue="a")

    assert await claim_ids(storage) == []
    assert await storage.list_paused_queues() == ["a"]


@pytest.mark.parametrize("queue", ["", " ", "a\0b", 5, None, "x" * 256])
async def test_a_bad_name_is_refused(storage: Storage, queue: str) -> None:
    with pytest.raises(InvalidValue, match="expected queue to"):
        await storage.pause_queue(queue)
    with pytest.raises(InvalidValue, match="expected queue to"):
        await storage.resume_queue(queue)
