"""Moves by hand: those of the table, and no others."""

import asyncio

import pytest

from qml_nb.states import TRANSITIONS, JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import bring_to, claim, claim_ids, put

ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY, SUCCEEDED, FAILED, DELETED = JobState
CANCELLABLE = {ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY}
REQUEUABLE = {FAILED, SCHEDULED, AWAITING_RETRY}
BY_HAND = {"cancel": (DELETED, CANCELLABLE), "requeue": (ENQUEUED, REQUEUABLE)}
MOVES = [(verb, to, state, state in allowed) for verb, (to, allowed) in BY_HAND.items() for state in JobState]


@pytest.mark.parametrize(("verb", "to", "state"), [move[:3] for move in MOVES if move[3]])
async def test_a_move_by_hand_that_is_allowed(storage: Storage, verb: str, to: JobState, state: JobState) -> None:
    before = await bring_to(storage, state)

    assert await getattr(storage, verb)(before.id, now=at(9)) is True

    after = await storage.get(before.id)
    assert after is not None
    assert (after.state, after.lease_until) == (to, None)
    assert (after.args_json, after.queue, after.created_ts) == (before.args_json, before.queue, before.created_ts)
    assert to in TRANSITIONS[state]


@pytest.mark.parametrize(("verb", "state"), [(move[0], move[2]) for move in MOVES if not move[3]])
async def test_a_move_by_hand_that_is_refused_changes_nothing(storage: Storage, verb: str, state: JobState) -> None:
    before = await bring_to(storage, state)
    counts = await storage.get_queue_counts()

    assert await getattr(storage, verb)(before.id, now=at(9)) is False

    assert await storage.get(before.id) == before
    assert await storage.get_queue_counts() == counts


@pytest.mark.parametrize("verb", BY_HAND)
async def test_a_job_that_is_not_there_is_not_moved(storage: Storage, verb: str) -> None:
    assert await getattr(storage, verb)("no such job") is False


async def test_a_cancelled_job_is_kept_and_never_claimed(storage: Storage) -> None:
    first, second = await put(storage, 2)
    await storage.cancel(first.id, now=at(5))

    assert await claim_ids(storage) == [second.id]
    cancelled = await storage.get(first.id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.finished_at) == (DELETED, at(5))
    assert cancelled.expires_at is not None


async def test_cancelling_a_running_job_takes_its_lease(storage: Storage) -> None:
    await put(storage)
    claimed = await claim(storage)

    await storage.cancel(claimed.id, now=NOW)

    assert list(await storage.renew(claimed)) == [False]
    assert (await storage.sweep(now=at(1_000))).reclaimed == 0


async def test_a_requeued_job_is_as_good_as_new(storage: Storage) -> None:
    failed = await bring_to(storage, FAILED)

    await storage.requeue(failed.id, now=at(9))

    job = await storage.get(failed.id)
    assert job is not None
    assert (job.attempt, job.error, job.result, job.worker_id) == (0, None, None, None)
    assert (job.started_at, job.finished_at, job.expires_at) == (None, None, None)


async def test_a_requeued_job_runs_at_once_and_once(storage: Storage) -> None:
    job = await bring_to(storage, SCHEDULED)
    await storage.requeue(job.id, now=NOW)

    assert await claim_ids(storage) == [job.id]
    assert (await storage.sweep(now=at(25))).promoted == 0
    assert (await storage.get_job_counts())[PROCESSING] == 1


async def test_of_many_who_cancel_one_job_one_succeeds(storage: Storage) -> None:
    [job] = await put(storage)

    answers = await asyncio.gather(*(storage.cancel(job.id) for _ in range(50)))

    assert sorted(answers) == [False] * 49 + [True]


async def test_of_many_who_requeue_one_job_one_succeeds(storage: Storage) -> None:
    job = await bring_to(storage, FAILED)

    answers = await asyncio.gather(*(storage.requeue(job.id) for _ in range(50)))

    assert sorted(answers) == [False] * 49 + [True]
    assert await claim_ids(storage) == [job.id]
