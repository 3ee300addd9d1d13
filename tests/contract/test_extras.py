"""What few jobs have, their own way to be retried among it, comes back equal wherever a job comes out."""

from typing import Any

import pytest
from msgspec.structs import replace

from qml_nb.errors import InvalidJob
from qml_nb.job import Job
from qml_nb.retry import RetryPolicy
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, claim_ids

POLICIES = [
    RetryPolicy.none(),
    RetryPolicy.fixed(0.1 + 0.2, jitter=1e-9),
    RetryPolicy.linear(1, 0.1, cap=1e7, retry_on=[OSError, "a.b.Ü😀"]),
    RetryPolicy.exponential(0, 1e-300, jitter=1, give_up_on=["ValueError", KeyError]),
]
EXTRAS: list[dict[str, Any]] = [
    *[{"retry": policy} for policy in POLICIES],
    {"unique_key": "key"},
    {"unique_key": "ü😀", "unique_for": 0.1 + 0.2, "retry": POLICIES[2]},
]


@pytest.mark.parametrize("extras", EXTRAS, ids=str)
async def test_a_job_comes_back_equal_over_every_move(storage: Storage, extras: dict[str, Any]) -> None:
    job = Job("work", **extras)
    await storage.enqueue(job)
    assert [job] == await storage.list() == await storage.get_available_jobs() == [await storage.get(job.id)]

    await storage.retry(await claim(storage), 5, now=NOW)
    await storage.sweep(now=at(5))
    await claim(storage, lease=10, now=5)
    await storage.sweep(now=at(16))
    claimed = await claim(storage, now=16)
    assert claimed.extras == job.extras
    await storage.fail(claimed, "it broke", now=at(17))
    assert [found.extras for found in await storage.list("failed")] == [job.extras]
    await storage.requeue(job.id, now=at(18))
    await storage.complete(await claim(storage, now=18), now=at(19))

    end = await storage.get(job.id)
    assert end is not None
    assert {name: getattr(end, name) for name in extras} == extras
    assert end.extras == job.extras


async def test_a_job_without_extras_has_none(storage: Storage) -> None:
    await storage.enqueue(Job("work"))

    claimed = await claim(storage)

    assert (claimed.extras, claimed.unique_key, claimed.unique_for, claimed.retry) == (None,) * 4


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("unique_key", [None, "key"])
async def test_a_jobs_retry_can_be_set_changed_and_taken_away(
    storage: Storage, state: JobState, unique_key: str | None
) -> None:
    job = await bring_to(storage, state, unique_key=unique_key)

    for policy in (*POLICIES, None):
        updated = await storage.update(job.replace(retry=policy))
        assert updated == replace(job, extras=updated.extras)
        assert (updated.retry, updated.unique_key) == (policy, unique_key)

    assert await storage.get(job.id) == job


async def test_a_changed_retry_is_handed_out(storage: Storage) -> None:
    job = Job("work", retry=POLICIES[0])
    await storage.enqueue(job)
    await storage.update(job.replace(retry=POLICIES[3], priority=5))

    assert (await claim(storage)).retry == POLICIES[3]
    assert await claim_ids(storage) == []


async def test_what_is_no_policy_is_refused(storage: Storage) -> None:
    await storage.enqueue(job := Job("work", retry=POLICIES[0]))

    with pytest.raises(InvalidJob, match="expected retry to be a RetryPolicy"):
        await storage.update(job.replace(retry=5))

    assert await storage.get(job.id) == job
