"""One may wait until no unfinished job is left."""

import asyncio

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.contract.states import bring_to, claim, put


async def test_it_returns_at_once_when_all_is_finished(storage: Storage) -> None:
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED):
        await bring_to(storage, state)

    await storage.drained(timeout=0)


@pytest.mark.parametrize("state", [JobState.ENQUEUED, JobState.PROCESSING, JobState.SCHEDULED, JobState.AWAITING_RETRY])
async def test_it_waits_for_every_unfinished_state(storage: Storage, state: JobState) -> None:
    await bring_to(storage, state)

    with pytest.raises(TimeoutError, match="1 jobs are unfinished after 0 s in all queues"):
        await storage.drained(timeout=0)


async def test_it_waits_for_the_queues_named(storage: Storage) -> None:
    await put(storage, queue="a")

    await storage.drained("b", "c", timeout=0)
    with pytest.raises(TimeoutError, match="in b, a"):
        await storage.drained("b", "a", timeout=0)


async def test_it_returns_when_the_last_job_is_finished(storage: Storage) -> None:
    await put(storage)
    task = asyncio.create_task(storage.drained())
    await asyncio.sleep(0)
    assert not task.done()

    await storage.complete(await claim(storage))

    await asyncio.wait_for(task, 10)


async def test_a_bad_timeout_is_refused(storage: Storage) -> None:
    with pytest.raises(InvalidValue, match="expected timeout to be at least 0 seconds, got -1"):
        await storage.drained(timeout=-1)
