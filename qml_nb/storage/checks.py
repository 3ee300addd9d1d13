"""What callers hand to a `Storage`, checked: jobs, states, and what became of a claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qml_nb.errors import InvalidJob, InvalidStateTransition, InvalidValue
from qml_nb.job import Job, Outcome
from qml_nb.states import ENQUEUED, PROCESSING, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def new_jobs(jobs: Iterable[Job]) -> Sequence[Job]:
    """Return the jobs, if each is a new one."""
    jobs = tuple(jobs)
    for job in jobs:
        if job.__class__ is not Job or job.state is not ENQUEUED:
            raise not_new(job)
    return jobs


def checked_job(job: object) -> Job:
    """Return it, if it is a job."""
    if not isinstance(job, Job):
        raise InvalidJob("job", "to be a Job", job, "write Job('method', [arguments])")
    return job


def checked_id(job_id: object) -> str:
    """Return it, if it is text: whether it is the id of a job, the storage knows."""
    if not isinstance(job_id, str):
        raise InvalidValue("job_id", "to be the id of a job", job_id, "write job.id")
    return job_id


def not_new(job: object) -> Exception:
    """Return what to raise for what is no new job."""
    try:
        old = checked_job(job)
    except InvalidJob as error:
        return error
    return InvalidStateTransition(old.id, old.state, ENQUEUED, "enqueue a new Job, or use requeue(job.id)")


def checked_state(value: object) -> JobState:
    """Return the state of that name."""
    try:
        return JobState(str(value))
    except ValueError:
        raise InvalidValue("state", f"to be one of {', '.join(JobState)}", value) from None


def outcome(job: Job, to: JobState, **what: Any) -> Outcome:
    """Return what became of a claim, if the job is the one that a fetch returned."""
    if checked_job(job).state is not PROCESSING:
        raise InvalidStateTransition(job.id, job.state, to, "settle the job that a fetch returned")
    return Outcome(job.id, job.claim_id, to, **what)
