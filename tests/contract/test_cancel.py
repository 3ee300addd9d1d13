"""Who runs jobs is told which one was cancelled."""

import asyncio

import pytest

from qml_nb.states import LIVE, JobState
from qml_nb.storage.backend import CANCELLED
from qml_nb.storage.inbox import Inbox
from qml_nb.storage.storage import Storage
from tests.contract.conftest import Connect
from tests.contract.states import bring_to

LAST = b"nothing more was told"


async def told(storage: Storage, inbox: Inbox) -> list[bytes]:
    """All that was told so far."""
    await storage.publish(CANCELLED, LAST)
    heard = []
    while (message := await asyncio.wait_for(anext(inbox), 10)) != LAST:
        heard.append(message)
    return heard


@pytest.mark.parametrize("state", JobState)
async def test_it_is_told_when_a_job_was_cancelled_and_not_when_it_was_not(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state)
    inbox = await storage.subscribe(CANCELLED)

    await storage.cancel(job.id)

    assert await told(storage, inbox) == ([job.id.encode()] if state in LIVE else [])


async def test_a_job_is_cancelled_when_that_is_told(storage: Storage, connect: Connect) -> None:
    async with await connect() as other:
        job = await bring_to(storage, JobState.PROCESSING)
        inbox = await storage.subscribe(CANCELLED)
        cancelling = asyncio.create_task(other.cancel(job.id))

        assert await asyncio.wait_for(anext(inbox), 10) == job.id.encode()

        stored = await storage.get(job.id)
        assert stored is not None
        assert stored.state is JobState.DELETED
        assert await cancelling is True


async def test_nothing_is_told_of_a_job_that_is_not_there(storage: Storage) -> None:
    inbox = await storage.subscribe(CANCELLED)

    assert await storage.cancel("no such job") is False

    assert await told(storage, inbox) == []
