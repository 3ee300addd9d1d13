"""What is sent again after a lost answer is answered as the first one was."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from qml_nb.errors import QueueFull
from qml_nb.job import Job, Report
from qml_nb.states import JobState
from qml_nb.storage.backend import Recurring
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.states import claim, ids, put
from tests.faults.wire import Wire

SCHEDULE = Recurring("hourly", "0 * * * *", "report", next_ts=0.0)


@pytest.fixture
async def wire(url: str) -> AsyncIterator[Wire]:
    """A wire to the server that loses answers."""
    async with Wire(url) as wire:
        yield wire


@pytest.fixture
async def far(connect: Any, wire: Wire) -> Storage:
    """A storage at the other end, which the server knows already."""
    storage: Storage = await connect(wire.url)
    await storage.upsert_recurring(SCHEDULE)
    await storage.delete((await put(storage))[0].id)
    return storage


async def test_a_job_with_a_key_is_stored_once_and_holds_it(far: Storage, wire: Wire) -> None:
    job = Job("work", unique_key="key")
    wire.to_lose = 2

    assert await far.enqueue(job) is True

    assert wire.to_lose == 0
    assert await far.get_unique("key") == job
    wire.to_lose = 1
    assert await far.enqueue(Job("work", unique_key="key")) is False


@pytest.mark.parametrize("when_full", ["reject", "block", "drop_oldest"])
async def test_a_job_that_filled_its_queue_was_stored(far: Storage, wire: Wire, when_full: str) -> None:
    await far.configure_queue("default", max_waiting=1, when_full=when_full)
    wire.to_lose = 2

    assert await far.enqueue(Job("work")) is True
    wire.to_lose = 0
    assert (await far.get_job_counts())[JobState.ENQUEUED] == 1


async def test_a_job_that_was_dropped_at_once_was_stored(far: Storage, wire: Wire) -> None:
    await far.configure_queue("default", max_waiting=1, when_full="drop_oldest")
    await put(far)
    low = Job("work", priority=-1)
    wire.to_lose = 1

    assert await far.enqueue(low) is True

    dropped = await far.get(low.id)
    assert dropped is not None
    assert dropped.state is JobState.DELETED


async def test_a_full_queue_refuses_again(far: Storage, wire: Wire) -> None:
    await far.configure_queue("default", max_waiting=1)
    await put(far)
    wire.to_lose = 1

    with pytest.raises(QueueFull):
        await far.enqueue(Job("work"))


async def test_a_firing_is_stored_once(far: Storage, wire: Wire) -> None:
    job, later = Job("report"), replace(SCHEDULE, next_ts=3_600.0)
    wire.to_lose = 2

    assert await far.backend.swap_recurring(SCHEDULE, later, [job]) is True

    assert wire.to_lose == 0
    assert ids(await far.list()) == [job.id]
    assert await far.backend.swap_recurring(SCHEDULE, later, [Job("report")]) is False
    assert ids(await far.list()) == [job.id]


async def test_a_report_is_kept(far: Storage, wire: Wire) -> None:
    await put(far)
    job = await claim(far)
    wire.to_lose = 1

    assert await far.backend.report([Report(job.id, job.claim_id, b"0.5")]) == [True]

    stored = await far.get(job.id)
    assert stored is not None
    assert stored.progress == 0.5


async def test_another_firing_of_the_same_instant_is_refused_though_it_is_sent_twice(far: Storage, wire: Wire) -> None:
    later = replace(SCHEDULE, next_ts=3_600.0)
    assert await far.backend.swap_recurring(SCHEDULE, later, now=NOW.timestamp()) is True
    wire.to_lose = 1

    assert await far.backend.swap_recurring(SCHEDULE, replace(later, last_ts=0.0), [Job("report")]) is False

    assert await far.list() == []
