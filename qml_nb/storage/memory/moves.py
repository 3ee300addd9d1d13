"""What a job becomes: pure functions from one snapshot of it to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_nb.job import CHANGEABLE, Extras
from qml_nb.states import AWAITING_RETRY, ENQUEUED, FAILED, FINAL, LOST_LEASE

if TYPE_CHECKING:
    from qml_nb.job import Job, Outcome
    from qml_nb.states import JobState


def settled(job: Job, outcome: Outcome, now: float, expires: float | None) -> Job:
    """Return the job after a run that did not succeed: to be retried, handed back, or failed."""
    if outcome.to is AWAITING_RETRY:
        due = now + outcome.delay
        return replace(job, state=AWAITING_RETRY, lease_ts=None, worker_id=None, run_ts=due, error=outcome.error)
    if outcome.to is ENQUEUED:  # handed back without having run
        return replace(job, state=ENQUEUED, lease_ts=None, worker_id=None, started_ts=None, attempt=job.attempt - 1)
    return replace(job, state=FAILED, lease_ts=None, finished_ts=now, error=outcome.error, expires_ts=expires)


def reclaimed(job: Job, again: bool, now: float, expires: float | None) -> Job:
    """Return the job after its lease ran out."""
    if again:
        return replace(job, state=ENQUEUED, lease_ts=None, worker_id=None)
    return replace(job, state=FAILED, lease_ts=None, finished_ts=now, error=LOST_LEASE, expires_ts=expires)


def moved(job: Job, to: JobState, now: float, expires: float | None) -> Job:
    """Return the job after somebody moved it by hand; one that is to run starts afresh."""
    if to in FINAL:
        return replace(job, state=to, lease_ts=None, finished_ts=now, expires_ts=expires)
    clean = {"worker_id": None, "started_ts": None, "finished_ts": None, "result_json": None, "expires_ts": None}
    return replace(job, state=to, attempt=0, run_ts=now, error=None, **clean)


def changed(job: Job, to: Job) -> Job:
    """Return the job with what may be changed as the other one has it; its unique key stays."""
    extras = Extras(job.unique_key, job.unique_for, to.retry)
    fields = {field: getattr(to, field) for field in CHANGEABLE.values()}
    return replace(job, **fields | {"extras": None if extras == Extras() else extras})
