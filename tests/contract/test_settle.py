"""What became of a run is written once, by whoever holds the job's lease, and by nobody else."""

from typing import Any

import pytest
from msgspec.structs import replace

from qml_nb.errors import InvalidJob, InvalidStateTransition, InvalidValue
from qml_nb.job import Job, Outcome
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, put

VERBS = ["complete", "fail", "retry", "hand_back"]


async def answer(storage: Storage, verb: str, job: Job, *, now: float = 0) -> bool:
    """Settle a claimed job by one of the four verbs."""
    settle = {
        "complete": lambda: storage.complete(job, "result", now=at(now)),
        "fail": lambda: storage.fail(job, "it broke", now=at(now)),
        "retry": lambda: storage.retry(job, 5, "it broke", now=at(now)),
        "hand_back": lambda: storage.hand_back(job, now=at(now)),
    }
    return await settle[verb]()


async def stored(storage: Storage, job: Job) -> Job:
    """Read a job that is there."""
    found = await storage.get(job.id)
    assert found is not None
    return found


async def test_complete_writes_the_result_and_frees_the_lease(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)

    assert await storage.complete(claimed, {"sum": 3}, now=at(2)) is True

    job = await stored(storage, claimed)
    assert (job.state, job.result, job.error) == (JobState.SUCCEEDED, {"sum": 3}, None)
    assert (job.started_at, job.finished_at, job.lease_until) == (NOW, at(2), None)
    assert (job.attempt, job.worker_id) == (1, "worker")


async def test_complete_without_a_result_leaves_none(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)

    await storage.complete(claimed)

    job = await stored(storage, claimed)
    assert (job.result, job.result_json) == (None, None)


async def test_fail_writes_the_error(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)

    assert await storage.fail(claimed, "ValueError: ü 😀", now=at(2)) is True

    job = await stored(storage, claimed)
    assert (job.state, job.error, job.result) == (JobState.FAILED, "ValueError: ü 😀", None)
    assert (job.finished_at, job.lease_until, job.attempt) == (at(2), None, 1)


async def test_retry_waits_for_its_delay(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)

    assert await storage.retry(claimed, 30, "it broke", now=at(2)) is True

    job = await stored(storage, claimed)
    assert (job.state, job.error, job.run_at) == (JobState.AWAITING_RETRY, "it broke", at(32))
    assert (job.worker_id, job.lease_until, job.attempt, job.finished_at) == (None, None, 1, None)


async def test_success_after_a_retry_clears_the_error(storage: Storage) -> None:
    await put(storage)
    await storage.retry(await claim(storage), 0, "it broke", now=NOW)
    await storage.sweep(now=NOW)
    again = await claim(storage)

    await storage.complete(again, now=NOW)

    assert (await stored(storage, again)).error is None


async def test_hand_back_leaves_the_job_as_it_was_before_its_claim(storage: Storage) -> None:
    [before] = await put(storage)

    claimed = await claim(storage)

    assert await storage.hand_back(claimed, now=NOW) is True

    assert await storage.get(before.id) == replace(before, claim_id=claimed.claim_id)


async def test_many_outcomes_are_answered_by_position(storage: Storage) -> None:
    await put(storage, 5)
    claimed = await storage.fetch_available_jobs_atomic("worker", 5, now=NOW)
    await storage.cancel(claimed[1].id)
    states = [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.AWAITING_RETRY, JobState.ENQUEUED]
    outcomes = [Outcome(job.id, job.claim_id, to) for job, to in zip(claimed, states, strict=True)]
    outcomes.insert(0, Outcome("no such job", 1, JobState.SUCCEEDED))

    answers = await storage.settle(outcomes, now=NOW)

    assert list(answers) == [False, True, False, True, True, True]
    states[1] = JobState.DELETED
    assert [(await stored(storage, job)).state for job in claimed] == states


async def test_settling_nothing_answers_nothing(storage: Storage) -> None:
    assert list(await storage.settle([])) == []


async def test_the_second_of_two_answers_in_one_batch_is_refused(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)
    outcomes = [Outcome(claimed.id, claimed.claim_id, to) for to in (JobState.FAILED, JobState.SUCCEEDED)]

    assert list(await storage.settle(outcomes, now=NOW)) == [True, False]

    assert (await stored(storage, claimed)).state is JobState.FAILED


async def test_totals_count_what_was_written_and_what_was_refused(storage: Storage) -> None:
    await put(storage, 2)
    first, second = await storage.fetch_available_jobs_atomic("worker", 2)
    await storage.complete(first)
    await storage.complete(first)
    await storage.fail(second, "it broke")

    assert (storage.totals.pushed, storage.totals.claimed) == (2, 2)
    assert (storage.totals.settled, storage.totals.refused) == (2, 1)


# -- fencing: an answer whose claim is no longer held changes nothing


async def take_away(storage: Storage, how: str, claimed: Job) -> None:
    """End the claim behind its worker's back."""
    match how:
        case "was settled":
            await storage.complete(claimed, "first", now=at(1))
        case "was cancelled":
            await storage.cancel(claimed.id, now=at(1))
        case "ran out":
            await storage.sweep(now=at(31))
        case "ran out and another worker has it":
            await storage.sweep(now=at(31))
            await claim(storage, "another", now=31)
        case "ran out and the same worker has it again":
            await storage.sweep(now=at(31))
            await claim(storage, claimed.worker_id or "", now=31)
        case "was handed back":
            await storage.hand_back(claimed, now=at(1))
        case "waits for its retry":
            await storage.retry(claimed, 5, now=at(1))
        case _:
            await give_again(storage, how, claimed)


async def give_again(storage: Storage, how: str, claimed: Job) -> None:
    """End the claim, and hand the job to the same worker once more, under what looks like the same claim."""
    match how.removesuffix(" and the same worker has it again"):
        case "was handed back":
            await storage.hand_back(claimed, now=at(1))
        case "failed, was requeued":
            await storage.fail(claimed, "broke", now=at(1))
            await storage.requeue(claimed.id, now=at(1))
        case "was deleted, sent again":
            await storage.delete(claimed.id)
            await storage.enqueue(Job(claimed.method, id=claimed.id))
    await claim(storage, claimed.worker_id or "", now=2)


LOST = [
    *["was settled", "was cancelled", "ran out", "ran out and another worker has it"],
    *["ran out and the same worker has it again", "was handed back", "waits for its retry"],
    "was handed back and the same worker has it again",
    "failed, was requeued and the same worker has it again",
    "was deleted, sent again and the same worker has it again",
]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", LOST)
async def test_an_answer_after_a_lost_claim_changes_nothing(storage: Storage, how: str, verb: str) -> None:
    await put(storage, max_retries=5)
    claimed = await claim(storage, lease=30)
    await take_away(storage, how, claimed)
    before, counts = await stored(storage, claimed), await storage.get_job_counts()

    assert await answer(storage, verb, claimed, now=40) is False

    assert await stored(storage, claimed) == before
    assert await storage.get_job_counts() == counts


@pytest.mark.parametrize("verb", VERBS)
async def test_an_answer_to_a_job_deleted_while_it_ran_does_not_bring_it_back(storage: Storage, verb: str) -> None:
    await put(storage)
    claimed = await claim(storage)
    await storage.delete(claimed.id)

    assert await answer(storage, verb, claimed) is False

    assert await storage.get(claimed.id) is None
    assert sum((await storage.get_job_counts()).values()) == 0


@pytest.mark.parametrize("off_by", [-1, 1, 1_000])
async def test_an_answer_by_who_never_had_the_claim_changes_nothing(storage: Storage, off_by: int) -> None:
    await put(storage)
    claimed = await claim(storage)

    assert list(await storage.settle([Outcome(claimed.id, claimed.claim_id + off_by, JobState.SUCCEEDED)])) == [False]

    assert await stored(storage, claimed) == claimed


async def test_the_holder_of_the_new_claim_may_answer(storage: Storage) -> None:
    await put(storage)
    old = await claim(storage, lease=30)
    await storage.sweep(now=at(31))
    new = await claim(storage, now=31)

    assert await storage.complete(old, "old", now=at(32)) is False
    assert await storage.complete(new, "new", now=at(32)) is True

    assert (await stored(storage, new)).result == "new"


async def test_an_update_while_the_job_runs_does_not_take_its_lease(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)
    await storage.update(claimed.replace(metadata={"seen": True}, queue="elsewhere"))

    assert await storage.complete(claimed, now=NOW) is True


# -- bad input


@pytest.mark.parametrize("verb", VERBS)
async def test_a_job_that_was_not_claimed_is_refused(storage: Storage, verb: str) -> None:
    [job] = await put(storage)

    with pytest.raises(InvalidStateTransition, match="settle the job that a fetch returned"):
        await answer(storage, verb, job)

    assert await storage.get(job.id) == job


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PROCESSING])
async def test_a_job_in_any_other_state_is_refused(storage: Storage, state: JobState, verb: str) -> None:
    job = await bring_to(storage, state)

    with pytest.raises(InvalidStateTransition):
        await answer(storage, verb, job)

    assert await storage.get(job.id) == job


async def test_what_is_no_job_is_refused(storage: Storage) -> None:
    with pytest.raises(InvalidJob, match="expected job to be a Job"):
        await storage.complete("an id")  # type: ignore[arg-type]


@pytest.mark.parametrize("result", [{1, 2}, float("nan"), object(), {1: 2}, b"bytes", NOW, "\ud800"])
async def test_a_result_that_is_no_json_is_refused_and_the_claim_kept(storage: Storage, result: Any) -> None:
    await put(storage)
    claimed = await claim(storage)

    with pytest.raises(InvalidValue, match="expected result to"):
        await storage.complete(claimed, result)

    assert await stored(storage, claimed) == claimed


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan"), "5", None, 10**400])
async def test_a_bad_delay_is_refused_and_the_claim_kept(storage: Storage, delay: Any) -> None:
    await put(storage)
    claimed = await claim(storage)

    with pytest.raises(InvalidValue, match="expected delay to be"):
        await storage.retry(claimed, delay)

    assert await stored(storage, claimed) == claimed


async def test_a_stale_claim_is_refused_also_beside_the_new_one_of_the_same_job(storage: Storage) -> None:
    [job] = await put(storage)
    stale = await claim(storage, now=0)
    await storage.sweep(now=at(100))
    fresh = await claim(storage, now=100)

    assert fresh.id == stale.id == job.id
    assert list(await storage.renew([stale, fresh], now=at(101))) == [False, True]
    both = [Outcome(each.id, each.claim_id, JobState.SUCCEEDED) for each in (stale, fresh)]
    assert list(await storage.settle(both, now=at(102))) == [False, True]
