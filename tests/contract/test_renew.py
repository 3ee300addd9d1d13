"""A lease runs on for whoever holds it."""

from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import claim, put
from tests.contract.test_settle import LOST, take_away


async def test_a_renewed_lease_ends_later(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage, lease=10)

    assert list(await storage.renew(claimed, 10, now=at(5))) == [True]

    assert (await storage.sweep(now=at(14.9))).reclaimed == 0
    assert (await storage.sweep(now=at(15.1))).reclaimed == 1


async def test_a_lease_may_be_made_shorter(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage, lease=100)

    await storage.renew(claimed, 1, now=NOW)

    assert (await storage.sweep(now=at(2))).reclaimed == 1


async def test_renewing_changes_nothing_but_the_lease(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage, lease=10)

    await storage.renew(claimed, 10, now=at(5))

    job = await storage.get(claimed.id)
    assert job is not None
    assert job.lease_until == at(15)
    assert (job.state, job.attempt, job.worker_id, job.started_at) == (JobState.PROCESSING, 1, "worker", NOW)


async def test_the_first_claim_still_answers_after_a_renewal(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage, lease=10)
    await storage.renew(claimed, 10, now=at(5))

    assert await storage.complete(claimed, now=at(6)) is True


async def test_many_are_answered_by_position(storage: Storage) -> None:
    waiting, *_ = await put(storage, 3, queue="waiting")
    await put(storage, 3)
    claimed = await storage.fetch_available_jobs_atomic("worker", 3, ["default"], now=NOW)
    await storage.cancel(claimed[1].id)

    assert list(await storage.renew([waiting, *claimed], 60, now=at(5))) == [False, True, False, True]


@pytest.mark.parametrize("how", LOST)
async def test_a_lost_claim_is_not_renewed(storage: Storage, how: str) -> None:
    await put(storage, max_retries=5)
    claimed = await claim(storage, lease=30)
    await take_away(storage, how, claimed)
    before = await storage.get(claimed.id)

    assert list(await storage.renew(claimed, 60, now=at(40))) == [False]

    assert await storage.get(claimed.id) == before


async def test_a_deleted_job_is_not_renewed(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)
    await storage.delete(claimed.id)

    assert list(await storage.renew([claimed])) == [False]


@pytest.mark.parametrize("lease", [0, -5, float("nan"), float("inf"), "long", None, 1e300])
async def test_a_bad_lease_is_refused(storage: Storage, lease: Any) -> None:
    await put(storage)
    claimed = await claim(storage)

    with pytest.raises(InvalidValue, match="expected lease to be"):
        await storage.renew(claimed, lease)

    assert await storage.get(claimed.id) == claimed
