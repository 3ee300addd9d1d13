"""A claimed job tells how far it is; it stays with the job until that is claimed again."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from qml_nb.job import Job, Report
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from qml_nb.validate import encode_json
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, put


async def report(storage: Storage, job: Job, progress: Any = 0.5) -> bool:
    """Whether a storage keeps what the job's worker says."""
    [kept] = await storage.backend.report([Report(job.id, job.claim_id, encode_json("progress", progress))])
    return kept


async def stored(storage: Storage, job: Job) -> Job:
    """The job as it stands."""
    found = await storage.get(job.id)
    assert found is not None
    return found


VALUES: list[Any] = [0.1 + 0.2, 2**53 + 1, 0, [], {}, "ü😀\0", {"done": 3, "of": [4, None]}, "x" * 100_000, None]


@pytest.mark.parametrize("progress", VALUES, ids=lambda value: repr(value)[:20])
async def test_what_is_said_comes_back_equal_and_changes_nothing_else(storage: Storage, progress: Any) -> None:
    await put(storage)
    claimed = await claim(storage)
    assert claimed.progress is None

    assert await report(storage, claimed, progress) is True

    job = await stored(storage, claimed)
    assert job == replace(claimed, progress_json=encode_json("progress", progress))
    assert job.progress == progress
    assert await storage.list() == [job]


async def test_the_newest_counts(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)
    for progress in (1, 2):
        await report(storage, claimed, progress)
    both = [Report(claimed.id, claimed.claim_id, said) for said in (b"3", b"4")]

    assert await storage.backend.report(both) == [True, True]

    assert (await stored(storage, claimed)).progress == 4


async def test_many_are_answered_by_position(storage: Storage) -> None:
    await put(storage, 3)
    first, second, third = await storage.fetch_available_jobs_atomic("worker", 3, now=NOW)
    await storage.complete(second, now=NOW)
    reports = [Report(job.id, job.claim_id, b"7") for job in (first, second, Job("work"), third)]

    assert await storage.backend.report(reports) == [True, False, False, True]

    assert [(await stored(storage, job)).progress for job in (first, second, third)] == [7, None, 7]


async def test_none_at_all_are_answered_with_nothing(storage: Storage) -> None:
    assert await storage.backend.report([]) == []


async def lose(storage: Storage, job: Job) -> None:
    await storage.sweep(now=at(31))


async def lose_and_claim(storage: Storage, job: Job) -> None:
    await storage.sweep(now=at(31))
    await claim(storage, now=31)


OVER: dict[str, Callable[[Storage, Job], Awaitable[Any]]] = {
    "completed": lambda storage, job: storage.complete(job, now=NOW),
    "failed": lambda storage, job: storage.fail(job, "it broke", now=NOW),
    "retried": lambda storage, job: storage.retry(job, 60, now=NOW),
    "handed back": lambda storage, job: storage.hand_back(job, now=NOW),
    "cancelled": lambda storage, job: storage.cancel(job.id, now=NOW),
    "lost": lose,
    "claimed by the same worker again": lose_and_claim,
}


@pytest.mark.parametrize("how", OVER)
async def test_a_report_by_a_claim_that_is_over_is_refused(storage: Storage, how: str) -> None:
    await put(storage)
    claimed = await claim(storage)
    await OVER[how](storage, claimed)
    before = await stored(storage, claimed)

    assert await report(storage, claimed) is False

    assert await stored(storage, claimed) == before


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PROCESSING])
async def test_a_job_that_does_not_run_reports_nothing(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state)

    assert await report(storage, job) is False

    assert (await stored(storage, job)).progress is None


@pytest.mark.parametrize("how", [how for how in OVER if "claimed" not in how])
async def test_it_stays_with_the_job_until_that_is_claimed_again(storage: Storage, how: str) -> None:
    await put(storage)
    claimed = await claim(storage)
    await report(storage, claimed, "half")

    await OVER[how](storage, claimed)

    job = await stored(storage, claimed)
    assert job.progress == "half"
    if job.state is JobState.FAILED:
        await storage.requeue(job.id, now=NOW)
        assert (await stored(storage, claimed)).progress == "half"
    if job.state not in (JobState.SUCCEEDED, JobState.DELETED):
        await storage.sweep(now=at(60))
        assert (await claim(storage, now=60)).progress is None
        assert (await stored(storage, claimed)).progress is None


async def test_a_renewal_and_an_update_leave_it(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)
    await report(storage, claimed, "half")

    await storage.renew(claimed, now=at(5))
    await storage.update(claimed.replace(priority=5))

    assert (await stored(storage, claimed)).progress == "half"
