"""A job, and what is said about jobs: the words that every other module speaks."""

from __future__ import annotations

from datetime import UTC, datetime
from inspect import Signature, signature
from time import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from msgspec import Struct, StructMeta
from msgspec.json import Decoder
from msgspec.structs import astuple, replace

from qml_nb.errors import InvalidJob, UnknownOption
from qml_nb.ids import new_id
from qml_nb.retry import RetryPolicy
from qml_nb.states import ENQUEUED, JobState
from qml_nb.validate import (
    INT32,
    check_instant,
    check_int,
    check_name,
    check_seconds,
    decode_json,
    encode_json,
    instant,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _JobMeta(StructMeta):
    """Lets `Job(…)` check and encode what it is given.

    A struct can't define `__init__`, and a plain class would be tracked by the cyclic garbage collector: a million
    waiting jobs then cost pauses of 180 ms, where structs without containers cost 20 (measured, Python 3.12).
    """

    def __call__(
        cls,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str = "default",
        priority: int = 0,
        max_retries: int = 0,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        job_type: str | None = None,
        unique_key: str | None = None,
        unique_for: float | None = None,
        retry: RetryPolicy | None = None,
        id: str | None = None,
        created_at: datetime | None = None,
        **unknown: Any,
    ) -> Job:
        if unknown:
            raise UnknownOption("Job", min(unknown), list(signature(cls).parameters))
        job: Job = _build(
            cls,
            new_id() if id is None else _check_id(id),
            check_name("method", method, InvalidJob),
            _EMPTY_LIST if args is _NO_ARGS else _encode_args(args),
            _EMPTY_DICT if kwargs is None else _encode_mapping("kwargs", kwargs),
            check_name("queue", queue, InvalidJob),
            priority if priority.__class__ is int and -INT32 <= priority < INT32 else _check_priority(priority),
            max_retries
            if max_retries.__class__ is int and 0 <= max_retries < INT32
            else _check_max_retries(max_retries),
            timeout if timeout is None else check_seconds("timeout", timeout, error=InvalidJob),
            _EMPTY_DICT if metadata is None else _encode_mapping("metadata", metadata),
            job_type if job_type is None else check_name("job_type", job_type, InvalidJob),
            time() if created_at is None else check_instant("created_at", created_at, InvalidJob),
            extras=None
            if unique_key is None and unique_for is None and retry is None
            else _check_extras(unique_key, unique_for, retry),
        )
        return job

    @property
    def __signature__(cls) -> Signature:
        whole = signature(_JobMeta.__call__)
        return whole.replace(parameters=list(whole.parameters.values())[1:-1])


_build: Final[Any] = StructMeta.__call__
_NO_ARGS: Final = ()  # asked by identity: an array or a data frame has no yes or no for ==
_EMPTY_LIST: Final = b"[]"
_EMPTY_DICT: Final = b"{}"
_decode_list: Final = Decoder(list[Any]).decode
_decode_dict: Final = Decoder(dict[str, Any]).decode


class Extras(Struct, frozen=True, gc=False, omit_defaults=True):
    """What few jobs have: a job without any of it carries None in place of this."""

    unique_key: str | None = None
    unique_for: float | None = None
    retry: RetryPolicy | None = None


class Job(Struct, metaclass=_JobMeta, frozen=True, gc=False, repr_omit_defaults=True):
    """One call of a task, and where it stands: an immutable snapshot.

    `Job("send_email", ["user@example.com"], queue="email", priority=5, max_retries=3, timeout=30.0)` makes one;
    `replace` makes a changed copy. What a storage returns is the job as it stood then: ask `get` for news.

    Args:
        method: the name of the task, as registered.
        args, kwargs: plain JSON data, encoded once, here, and carried unchanged from then on.
        queue: where it waits.
        priority: higher first, 32 bits. Equal ones run in order of their ids: of creation, unless you give ids.
        max_retries: how often it is tried again after a failure; 0 means no retry.
        timeout: seconds of run time; None leaves it to the server's `job_timeout`.
        metadata, job_type: yours; the queue only carries them.
        unique_key: while a job with this key is unfinished, others with the same key are not stored.
        unique_for: seconds from storing it for which the key is taken instead, whether or not the job is finished.
        retry: when it runs again after an error; None leaves it to the task, and then to the server.
        id: a UUID as text, for an id that a resend must share; else a new uuid7.
        created_at: the instant that it was asked for, an aware datetime; else now. Latency counts from here.

    Raises:
        InvalidJob: names the field, the value and the remedy.

    The fields that end in `_ts` are POSIX seconds on the storage's clock, those in `_json` encoded values; the
    attributes without the ending are the same as aware datetimes and as Python data, a new copy at each access.

    >>> job = Job("add", [1, 2], priority=5)
    >>> job.args, job.kwargs, job.queue, job.state, job.attempt
    ([1, 2], {}, 'default', <JobState.ENQUEUED: 'enqueued'>, 0)
    >>> Job("add", [1, 2], priority=2**31)
    Traceback (most recent call last):
    qml_nb.errors.InvalidJob: expected priority to be at most 2147483647, got 2147483648
    """

    # The order is part of what other modules store: append only.
    id: str
    method: str
    args_json: bytes
    kwargs_json: bytes
    queue: str
    priority: int
    max_retries: int
    timeout: float | None
    metadata_json: bytes
    job_type: str | None
    created_ts: float
    state: JobState = ENQUEUED
    attempt: int = 0
    run_ts: float | None = None
    worker_id: str | None = None
    lease_ts: float | None = None
    started_ts: float | None = None
    finished_ts: float | None = None
    result_json: bytes | None = None
    error: str | None = None
    expires_ts: float | None = None
    claim_id: int = 0
    """The number of its newest claim; a storage gives no number twice, so it tells a lost claim from a later one."""
    extras: Extras | None = None
    progress_json: bytes | None = None

    if TYPE_CHECKING:  # what `_JobMeta.__call__` takes, for checkers that read only the class

        def __init__(
            self,
            method: str,
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
            *,
            queue: str = "default",
            priority: int = 0,
            max_retries: int = 0,
            timeout: float | None = None,
            metadata: Mapping[str, Any] | None = None,
            job_type: str | None = None,
            unique_key: str | None = None,
            unique_for: float | None = None,
            retry: RetryPolicy | None = None,
            id: str | None = None,
            created_at: datetime | None = None,
        ) -> None: ...

    @property
    def args(self) -> list[Any]:
        """The positional arguments."""
        return _decode_list(self.args_json)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        return _decode_dict(self.kwargs_json)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the caller attached."""
        return _decode_dict(self.metadata_json)

    @property
    def result(self) -> Any:
        """What the task returned; None before it succeeded, and when it returned nothing."""
        return None if self.result_json is None else decode_json(self.result_json)

    @property
    def progress(self) -> Any:
        """What the task said last of how far it is, in its newest run; None if it said nothing."""
        return None if self.progress_json is None else decode_json(self.progress_json)

    @property
    def unique_key(self) -> str | None:
        """The key that no two unfinished jobs share; None if it has none."""
        return None if self.extras is None else self.extras.unique_key

    @property
    def unique_for(self) -> float | None:
        """For how many seconds from storing it the key is taken; None: while the job is unfinished."""
        return None if self.extras is None else self.extras.unique_for

    @property
    def retry(self) -> RetryPolicy | None:
        """When it runs again after an error; None leaves it to the task, and then to the server."""
        return None if self.extras is None else self.extras.retry

    @property
    def created_at(self) -> datetime:
        """The instant that the job was asked for."""
        return datetime.fromtimestamp(self.created_ts, UTC)

    @property
    def run_at(self) -> datetime | None:
        """The instant before which a scheduled job, or one that awaits its retry, does not run."""
        return instant(self.run_ts)

    @property
    def lease_until(self) -> datetime | None:
        """The instant at which the worker's claim on the job ends, unless it is renewed."""
        return instant(self.lease_ts)

    @property
    def started_at(self) -> datetime | None:
        """The instant at which a worker last claimed the job."""
        return instant(self.started_ts)

    @property
    def finished_at(self) -> datetime | None:
        """The instant at which the job succeeded, failed or was deleted."""
        return instant(self.finished_ts)

    @property
    def expires_at(self) -> datetime | None:
        """The instant after which a finished job is pruned; None keeps it."""
        return instant(self.expires_ts)

    def replace(self, **changes: Any) -> Job:
        """Make a copy with other values for what `Job(…)` takes, checked in the same way; id and state stay.

        >>> Job("add", [1, 2]).replace(args=[3], priority=1).args
        [3]
        """
        unknown = changes.keys() - CHANGEABLE.keys()
        if unknown:
            raise UnknownOption("Job.replace", min(unknown), CHANGEABLE)
        if "retry" in changes:  # it lies beside the key, which stays
            changes |= {"unique_key": self.unique_key, "unique_for": self.unique_for}
        checked = Job(**{"method": self.method} | changes)
        fields = {CHANGEABLE[name] for name in changes.keys() & CHANGEABLE.keys()}
        return replace(self, **{field: getattr(checked, field) for field in fields})

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, astuple(self)

    def __repr__(self) -> str:
        extra = f", attempt={self.attempt}" if self.attempt else ""
        return f"Job({self.method!r}, id={self.id!r}, queue={self.queue!r}, state={self.state.value!r}{extra})"


def restore(*fields: Any) -> Job:
    """Put a job together from its fields, in their order and unchecked: for who stored them."""
    job: Job = _build(Job, *fields)
    return job


CHANGEABLE: Final[Mapping[str, str]] = MappingProxyType(
    {name: name for name in ("method", "queue", "priority", "max_retries", "timeout", "job_type")}
    | {name: f"{name}_json" for name in ("args", "kwargs", "metadata")}
    | {"retry": "extras"}
)
"""What `Job.replace` and `Storage.update` may change, as {argument: field}."""


class Report(Struct, frozen=True, gc=False):
    """How far one run of a job is, and the claim (`job_id`, `claim_id`) that entitles to say so."""

    job_id: str
    claim_id: int
    progress_json: bytes


class Outcome(Struct, frozen=True, gc=False):
    """What became of one run of a job, and the claim (`job_id`, `claim_id`) that entitles to say so.

    `to` is succeeded, failed, awaiting_retry (after `delay` seconds) or enqueued (handed back without having run:
    the attempt does not count).
    """

    job_id: str
    claim_id: int
    to: JobState
    result_json: bytes | None = None
    error: str | None = None
    delay: float = 0.0


class JobFilter(Struct, frozen=True):
    """Which jobs to find: those that match every field that is not None."""

    state: JobState | None = None
    queue: str | None = None
    method: str | None = None

    def matches(self, job: Job) -> bool:
        """Whether the job is one of them."""
        return (
            (self.state is None or job.state == self.state)
            and (self.queue is None or job.queue == self.queue)
            and (self.method is None or job.method == self.method)
        )


def _check_id(value: object) -> str:
    remedy = "leave it out for a new one, or pass str(uuid.uuid4())"
    if not isinstance(value, str):
        raise InvalidJob("id", "to be a UUID as text", value, remedy)
    try:
        return str(UUID(value))
    except ValueError:
        raise InvalidJob("id", "to be a UUID as text", value, remedy) from None


def _check_priority(value: object) -> int:
    return check_int("priority", value, -INT32, INT32 - 1, InvalidJob)


def _check_max_retries(value: object) -> int:
    return check_int("max_retries", value, 0, error=InvalidJob)


def _check_extras(unique_key: object, unique_for: object, retry: object) -> Extras:
    if unique_key is None and unique_for is not None:
        raise InvalidJob("unique_for", "to come with a unique_key", unique_for, "name the key, or leave it out")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise InvalidJob("retry", "to be a RetryPolicy", retry, "write RetryPolicy.exponential()")
    return Extras(
        None if unique_key is None else check_name("unique_key", unique_key, InvalidJob),
        None if unique_for is None else check_seconds("unique_for", unique_for, error=InvalidJob),
        retry,
    )


def _encode_args(value: object) -> bytes:
    if not isinstance(value, (list, tuple)):
        raise InvalidJob("args", "to be a list", value, f"write [{value!r}]" if isinstance(value, str) else "use [...]")
    return encode_json("args", value, InvalidJob)


def _encode_mapping(field: str, value: object) -> bytes:
    if not isinstance(value, dict):
        raise InvalidJob(field, "to be a dict", value)
    return encode_json(field, value, InvalidJob)
