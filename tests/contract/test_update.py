"""What a caller may change is changed, and nothing else, in whatever state the job is."""

from typing import Any

import pytest

from qml_nb.errors import InvalidJob, InvalidValue, JobNotFound
from qml_nb.job import Job
from qml_nb.retry import RetryPolicy
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.contract.states import bring_to, claim, claim_ids, one_in_each, put

CHANGES: dict[str, Any] = {
    "method": "other",
    "args": [1, None],
    "kwargs": {"key": "ü"},
    "queue": "elsewhere",
    "priority": 9,
    "max_retries": 7,
    "timeout": 2.5,
    "metadata": {"seen": True},
    "job_type": "kind",
    "retry": RetryPolicy.linear(1, 2, retry_on=[OSError]),
}
HISTORY = ["id", "created_ts", "state", "attempt", "run_ts", "worker_id", "lease_ts", "started_ts", "finished_ts"]
HISTORY += ["result_json", "error", "expires_ts", "claim_id", "unique_key", "unique_for", "progress_json"]


@pytest.mark.parametrize("state", JobState)
async def test_every_changeable_field_is_written_and_the_rest_stays(storage: Storage, state: JobState) -> None:
    before = await bring_to(storage, state)

    returned = await storage.update(before.replace(**CHANGES))

    assert returned == await storage.get(before.id)
    assert {name: getattr(returned, name) for name in CHANGES} == CHANGES
    assert [getattr(returned, name) for name in HISTORY] == [getattr(before, name) for name in HISTORY]


@pytest.mark.parametrize("state", JobState)
async def test_a_changed_queue_moves_the_count(storage: Storage, state: JobState) -> None:
    job = await bring_to(storage, state)

    await storage.update(job.replace(queue="elsewhere"))

    assert (await storage.get_job_counts("default"))[state] == 0
    assert (await storage.get_job_counts("elsewhere"))[state] == 1


async def test_a_stale_copy_does_not_bring_back_an_old_state(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.complete(await claim(storage), "result")

    stored = await storage.update(job.replace(priority=5))

    assert (stored.state, stored.result, stored.attempt, stored.priority) == (JobState.SUCCEEDED, "result", 1, 5)


async def test_an_updated_job_is_claimed_once(storage: Storage) -> None:
    [job] = await put(storage)
    for priority in range(5):
        await storage.update(job.replace(priority=priority % 2))

    assert await claim_ids(storage) == [job.id]


async def test_updating_a_job_that_is_not_stored_is_refused(storage: Storage) -> None:
    with pytest.raises(JobNotFound, match="no job"):
        await storage.update(Job("work"))
    with pytest.raises(JobNotFound):
        await storage.update_if_state(Job("work"), JobState.ENQUEUED)

    assert await storage.list() == []


@pytest.mark.parametrize("state", JobState)
async def test_update_if_state_writes_only_in_that_state(storage: Storage, state: JobState) -> None:
    made = await one_in_each(storage)

    for job in made.values():
        assert await storage.update_if_state(job.replace(metadata={"seen": True}), state) is (job.state is state)

    for job in made.values():
        found = await storage.get(job.id)
        assert found is not None
        assert found.metadata == ({"seen": True} if found.state is state else {})


async def test_update_if_state_takes_the_state_as_text(storage: Storage) -> None:
    [job] = await put(storage)

    assert await storage.update_if_state(job.replace(priority=1), "enqueued") is True


async def test_bad_arguments_are_refused(storage: Storage) -> None:
    [job] = await put(storage)

    with pytest.raises(InvalidValue, match="expected state to be one of"):
        await storage.update_if_state(job.replace(priority=1), "waiting")
    with pytest.raises(InvalidJob, match="expected job to be a Job"):
        await storage.update(job.id)  # type: ignore[arg-type]

    assert await storage.get(job.id) == job
