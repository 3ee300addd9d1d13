"""A job is looked up as it stands."""

from datetime import UTC

import pytest

from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW
from tests.contract.states import bring_to, claim, put


async def test_a_new_job_comes_back_equal(storage: Storage) -> None:
    [job] = await put(storage)

    assert await storage.get(job.id) == job


@pytest.mark.parametrize("job_id", ["", "no such id", "01a20c92-9c76-7e14-8436-424e4cbc1f07", "%", "*"])
async def test_an_unknown_id_gives_none(storage: Storage, job_id: str) -> None:
    await put(storage)

    assert await storage.get(job_id) is None


@pytest.mark.parametrize("state", JobState)
async def test_a_job_comes_back_as_a_job_whatever_became_of_it(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state, queue="q", priority=3, max_retries=1, metadata={"m": []}, job_type="kind")

    assert type(job) is Job
    assert (job.args, job.kwargs, job.metadata) == (["argument"], {}, {"m": []})
    assert (job.queue, job.priority, job.max_retries, job.job_type) == ("q", 3, 1, "kind")


@pytest.mark.parametrize("state", JobState)
async def test_instants_are_aware_and_in_utc(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state, created_at=NOW)

    instants = [job.created_at, job.run_at, job.lease_until, job.started_at, job.finished_at, job.expires_at]
    assert {instant.tzinfo for instant in instants if instant is not None} == {UTC}
    assert job.created_at == NOW


async def test_what_was_returned_before_does_not_change(storage: Storage) -> None:
    [job] = await put(storage)
    before = await storage.get(job.id)
    await claim(storage)

    assert before == job
    assert await storage.get(job.id) != before


async def test_every_reader_gets_python_data_of_its_own(storage: Storage) -> None:
    job = await bring_to(storage, JobState.SUCCEEDED)
    job.args.append("more")
    job.result["answer"] = 0

    again = await storage.get(job.id)
    assert again is not None
    assert (again.args, again.result) == (["argument"], {"answer": 42})
