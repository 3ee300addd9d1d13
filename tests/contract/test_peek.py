"""One may look at what would be claimed next, and leave it there."""

import random

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import ALL, claim_ids, ids, one_in_each, put


async def jumble(storage: Storage) -> None:
    """Leave jobs of several priorities and queues waiting: new, retried, reclaimed, handed back, changed, cancelled."""
    dice = random.Random(3)
    jobs = [Job("work", queue=dice.choice("abc"), priority=dice.randrange(3)) for _ in range(80)]
    await storage.enqueue_many(jobs)
    for job in dice.sample(jobs, 10):
        await storage.update(job.replace(priority=dice.randrange(3), queue=dice.choice("abc")))
    claimed = await storage.fetch_available_jobs_atomic("worker", 30, lease=10, now=NOW)
    for job in claimed[:10]:
        await storage.retry(job, 0, now=NOW)
    for job in claimed[10:20]:
        await storage.hand_back(job, now=NOW)
    for job in dice.sample(jobs, 10):
        await storage.cancel(job.id, now=NOW)
    await storage.sweep(now=at(11))


@pytest.mark.parametrize("queues", [None, ["a"], ["c", "b"]])
@pytest.mark.parametrize("limit", [1, 10, ALL])
async def test_it_shows_what_claim_gives_in_the_same_order(
    storage: Storage, limit: int, queues: list[str] | None
) -> None:
    await jumble(storage)

    shown = ids(await storage.get_available_jobs(limit, queues))

    assert shown
    assert shown == await claim_ids(storage, limit, queues)


async def test_looking_changes_nothing(storage: Storage) -> None:
    jobs = await put(storage, 5)

    assert await storage.get_available_jobs(3) == jobs[:3]
    assert await storage.get_available_jobs(3) == jobs[:3]

    assert [await storage.get(job.id) for job in jobs] == jobs


async def test_only_enqueued_jobs_are_shown(storage: Storage) -> None:
    made = await one_in_each(storage)

    assert await storage.get_available_jobs() == [made[JobState.ENQUEUED]]


async def test_ten_are_shown_by_default(storage: Storage) -> None:
    jobs = await put(storage, 12)

    assert await storage.get_available_jobs() == jobs[:10]


async def test_bad_arguments_are_refused(storage: Storage) -> None:
    with pytest.raises(InvalidValue, match="expected limit to be at least 1, got 0"):
        await storage.get_available_jobs(0)
    with pytest.raises(InvalidValue, match=r"expected queues to be a list of names, got 'email'; write \['email'\]"):
        await storage.get_available_jobs(queues="email")
