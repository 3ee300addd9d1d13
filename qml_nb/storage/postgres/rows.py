"""How a job lies in PostgreSQL: as a row of the live table, or of the finished ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import json

from qml_nb.job import Extras, Job, restore
from qml_nb.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from qml_nb.retry import RetryPolicy

STATES = tuple(JobState)
"""A state is its place here, as the tables number them."""
NUMBER = {state: number for number, state in enumerate(STATES)}

LIVE = (
    "id, method, args, kwargs, queue, priority, max_retries, timeout, metadata, job_type, created_ts, state, attempt, "
    "run_ts, worker_id, lease_ts, started_ts, null, null, error, null, claim_id, extras, progress"
)
"""The columns of a live job, in the order of the fields of `Job`."""
DONE = LIVE.replace("started_ts, null, null, error, null", "started_ts, finished_ts, result, error, expires_ts")
"""The same of a job that may be finished."""
_ID_LENGTH = 36
_extras = json.Decoder(Extras).decode


def is_id(job_id: str) -> bool:
    """Whether the text is an id as jobs have it.

    >>> is_id("01a20c92-9c76-7e14-8436-424e4cbc1f07"), is_id("no such id")
    (True, False)
    """
    if len(job_id) != _ID_LENGTH:
        return False
    try:
        return str(UUID(job_id)) == job_id
    except ValueError:
        return False


def place(after: str) -> UUID:
    """Return where an id lies, or would lie if it were one."""
    try:
        return UUID(after)
    except ValueError:
        digits = "".join(digit for digit in after.lower() if digit in "0123456789abcdef")
        return UUID((digits + "0" * 32)[:32])


def in_order(job: Job) -> tuple[int, str]:
    """Return what jobs are handed out by."""
    return -job.priority, job.id


def job_of(row: Sequence[Any]) -> Job:
    """Return the job that a row is, by the columns `LIVE` or `DONE`."""
    fields = list(row)
    fields[0] = str(fields[0])
    fields[2], fields[3], fields[8] = fields[2].encode(), fields[3].encode(), fields[8].encode()
    fields[11] = STATES[fields[11]]
    if fields[18] is not None:
        fields[18] = fields[18].encode()
    if fields[22] is not None:
        fields[22] = _extras(fields[22])
    if fields[23] is not None:
        fields[23] = fields[23].encode()
    return restore(*fields)


def as_columns(jobs: Sequence[Job]) -> tuple[list[Any], ...]:
    """Return what the function `push` takes: a value for each job, one for all of them, or none where all are null."""
    return (
        [job.id for job in jobs],
        _shared(jobs, lambda job: job.queue),
        _shared(jobs, lambda job: job.method),
        _shared(jobs, lambda job: job.priority),
        _shared(jobs, lambda job: job.max_retries),
        _some(jobs, lambda job: job.timeout),
        _some(jobs, lambda job: job.job_type),
        [job.created_ts for job in jobs],
        _shared(jobs, lambda job: NUMBER[job.state]),
        _some(jobs, lambda job: job.run_ts),
        _shared(jobs, lambda job: job.args_json.decode()),
        _shared(jobs, lambda job: job.kwargs_json.decode()),
        _shared(jobs, lambda job: job.metadata_json.decode()),
        _extras_of(jobs),
    )


NO_JOBS: tuple[list[Any], ...] = ([],) * 14
"""What `as_columns` would return for none."""


ENTERED: tuple[str, ...] = (
    "id",
    "queue",
    "method",
    "priority",
    "max_retries",
    "timeout",
    "job_type",
    "created_ts",
    "state",
    "run_ts",
)
ENTERED += ("args", "kwargs", "metadata", "extras")
"""The columns of a new job."""


def as_entered(jobs: Iterable[Job]) -> Iterator[tuple[Any, ...]]:
    """Yield new jobs as rows of the columns `ENTERED`, to be copied into the live table."""
    for job in jobs:
        yield (
            job.id,
            job.queue,
            job.method,
            job.priority,
            job.max_retries,
            job.timeout,
            job.job_type,
            job.created_ts,
            NUMBER[job.state],
            job.run_ts,
            job.args_json.decode(),
            job.kwargs_json.decode(),
            job.metadata_json.decode(),
            None if job.extras is None else _encoded(job.extras),
        )


def how_many(jobs: Iterable[Job]) -> tuple[list[str], list[int], list[int]]:
    """Return how many jobs there are of each queue and state, as the function `enter` takes it: three columns."""
    groups = Counter((job.queue, job.state) for job in jobs)
    return [queue for queue, _ in groups], [NUMBER[state] for _, state in groups], list(groups.values())


def as_updated(jobs: Sequence[Job]) -> tuple[list[Any], ...]:
    """Return what the function `update` takes."""
    return (
        [job.id for job in jobs],
        [job.queue for job in jobs],
        [job.method for job in jobs],
        [job.priority for job in jobs],
        [job.max_retries for job in jobs],
        [job.timeout for job in jobs],
        [job.job_type for job in jobs],
        [job.args_json.decode() for job in jobs],
        [job.kwargs_json.decode() for job in jobs],
        [job.metadata_json.decode() for job in jobs],
        [None if job.retry is None else _encoded(job.retry) for job in jobs],
    )


def _encoded(value: Extras | RetryPolicy) -> str:
    return json.encode(value).decode()


def _extras_of(jobs: Sequence[Job]) -> list[str | None]:
    extras = [job.extras for job in jobs]
    return [] if extras.count(None) == len(extras) else [None if each is None else _encoded(each) for each in extras]


def _shared(jobs: Sequence[Job], value: Callable[[Job], Any]) -> list[Any]:
    values = [value(job) for job in jobs]
    return values[:1] if values.count(values[0]) == len(values) else values


def _some(jobs: Sequence[Job], value: Callable[[Job], Any]) -> list[Any]:
    values = [value(job) for job in jobs]
    return [] if values.count(None) == len(values) else values
