"""Jobs are listed newest first, filtered, in pages that are right while jobs move."""

from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.states import ALL, claim, claim_ids, ids, one_in_each, put


async def pages(storage: Storage, limit: int, **wanted: Any) -> list[str]:
    """The ids on all pages, read to the end."""
    seen: list[str] = []
    after = None
    while page := await storage.list(limit=limit, after=after, **wanted):
        assert len(page) <= limit
        seen += ids(page)
        after = page[-1].id
    return seen


async def test_an_empty_storage_lists_nothing(storage: Storage) -> None:
    assert await storage.list() == []


async def test_the_newest_come_first_whatever_queue_priority_and_state(storage: Storage) -> None:
    made = [*(await one_in_each(storage)).values(), *await put(storage, 3, priority=5)]

    assert await storage.list() == made[::-1]


async def test_fifty_are_listed_by_default(storage: Storage) -> None:
    jobs = await put(storage, 60)

    assert ids(await storage.list()) == ids(jobs[:9:-1])


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("spell", [JobState, str])
async def test_a_state_filters(storage: Storage, state: JobState, spell: Any) -> None:
    made = await one_in_each(storage)

    assert await storage.list(spell(state.value)) == [made[state]]


async def test_a_queue_and_a_method_filter_alone_and_together(storage: Storage) -> None:
    jobs = [Job(method, queue=queue) for queue in "ab" for method in "xy"]
    await storage.enqueue_many(jobs)

    assert ids(await storage.list(queue="a")) == ids([jobs[1], jobs[0]])
    assert ids(await storage.list(method="y")) == ids([jobs[3], jobs[1]])
    assert ids(await storage.list(JobState.ENQUEUED, "b", "x")) == ids([jobs[2]])
    assert await storage.list(JobState.FAILED, "b", "x") == []
    assert await storage.list(queue="no such queue") == []


@pytest.mark.parametrize("limit", [1, 3, 10, 25, 26])
async def test_pages_are_complete_and_without_a_double(storage: Storage, limit: int) -> None:
    jobs = await put(storage, 25)

    assert await pages(storage, limit) == ids(jobs[::-1])


async def test_filtered_pages_are_complete_and_without_a_double(storage: Storage) -> None:
    wanted = await put(storage, 5, queue="a")
    await put(storage, 7, queue="b")
    wanted += await put(storage, 6, queue="a")

    assert await pages(storage, 4, queue="a") == ids(wanted[::-1])


async def test_pages_are_right_while_jobs_move_and_new_ones_come(storage: Storage) -> None:
    jobs = await put(storage, 30)
    seen: list[str] = []
    after = None
    while page := await storage.list(limit=4, after=after):
        seen += ids(page)
        after = page[-1].id
        await put(storage, 3)
        await claim_ids(storage, 2)
        await storage.update(jobs[0].replace(priority=len(seen)))

    assert seen == ids(jobs[::-1])


async def test_a_page_after_a_job_that_is_gone_goes_on_where_it_was(storage: Storage) -> None:
    jobs = await put(storage, 6)
    page = await storage.list(limit=3)
    await storage.delete(page[-1].id)

    assert ids(await storage.list(after=page[-1].id)) == ids(jobs[2::-1])


async def test_after_the_oldest_there_is_nothing(storage: Storage) -> None:
    jobs = await put(storage, 3)

    assert await storage.list(after=jobs[0].id) == []


async def test_a_job_is_listed_where_it_is_now(storage: Storage) -> None:
    [job] = await put(storage)
    claimed = await claim(storage)
    await storage.update(claimed.replace(queue="elsewhere", method="other"))
    await storage.complete(claimed, now=NOW)

    assert ids(await storage.list("succeeded", "elsewhere", "other")) == [job.id]
    assert await storage.list(JobState.ENQUEUED, limit=ALL) == await storage.list(queue="default") == []


@pytest.mark.parametrize("state", ["", "done", "ENQUEUED", 1, []])
async def test_an_unknown_state_is_refused(storage: Storage, state: Any) -> None:
    with pytest.raises(InvalidValue, match="expected state to be one of enqueued, processing"):
        await storage.list(state)


@pytest.mark.parametrize("limit", [0, -1, 2.0, "5", None, True])
async def test_a_bad_limit_is_refused(storage: Storage, limit: Any) -> None:
    with pytest.raises(InvalidValue, match="expected limit to be"):
        await storage.list(limit=limit)
