"""What a task knows of the job that it runs, and what it can tell about it: `job_context()`."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from logging import Logger, LoggerAdapter, getLogger
from math import inf
from sys import float_info
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from qml_nb.errors import InvalidValue, OutsideJob
from qml_nb.job import Report
from qml_nb.server.run import NS
from qml_nb.validate import check_seconds, encode_json

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from qml_nb.job import Job
    from qml_nb.server.progress import Reports
    from qml_nb.server.run import Run

_log = getLogger("qml_nb.jobs")
_LONGEST = 10_000
_LARGEST: Final = float_info.max

running: Final[ContextVar[Run]] = ContextVar("qml_nb.running")
"""The run of the job in whose context the code runs."""
reports: Final[ContextVar[Reports]] = ContextVar("qml_nb.reports")
"""Where the server of that job collects what jobs tell."""


def job_context() -> JobContext:
    """Return the context of the job that runs here, also in its child tasks and in the threads of plain functions.

    >>> job_context()
    Traceback (most recent call last):
    qml_nb.errors.OutsideJob: no job runs here; call job_context() in a task, in what it awaits, or in asyncio.to_thread

    Raises:
        OutsideJob: none does.
    """
    run = running.get(None)
    if run is None:
        raise OutsideJob
    return JobContext(run, reports.get())


class JobContext:
    """The job that runs, how long it may, and the way to tell how far it is. May be used from any thread.

    A plain function can't be cancelled from outside for certain. One that has looked at `cancelled`, or waits with
    `wait_cancelled`, gets half a second from then on to return by itself, before it is interrupted.
    """

    __slots__ = ("_reports", "_run")

    def __init__(self, run: Run, reports: Reports) -> None:
        self._run, self._reports = run, reports

    @property
    def job(self) -> Job:
        """The job, as it was claimed."""
        return self._run.job

    @property
    def attempt(self) -> int:
        """The number of this run: 1 for the first."""
        return self._run.job.attempt

    @property
    def is_retry(self) -> bool:
        """Whether it has run before, to an error or to the death of its worker."""
        return self._run.job.attempt > 1

    @property
    def seconds_left(self) -> float:
        """How long it may still run, 0.0 when its time is up; `math.inf` if there is no limit."""
        return max(self._run.deadline - perf_counter_ns(), 0.0) / NS

    @property
    def deadline(self) -> datetime | None:
        """The instant at which it will be cancelled, by this machine's clock; None if there is no limit."""
        left = self.seconds_left
        return None if left == inf else datetime.now(UTC) + timedelta(seconds=left)

    @property
    def cancelled(self) -> bool:
        """Whether it should end; its outcome does not count any more."""
        return self._run.watched().is_set()

    @property
    def cancel_reason(self) -> str | None:
        """Why it should end; None if it should not.

        "timeout": its time is up. "stop": the server stops. "lost": the job was cancelled or deleted, or its lease ran
        out, and it is no longer this server's.
        """
        return self._run.reason if self.cancelled else None

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Wait in a plain function until it should end, `timeout` seconds at the most. Returns whether it should.

        Async tasks need none of it: whatever they await raises `asyncio.CancelledError`.
        """
        limit = None if timeout is None else check_seconds("timeout", timeout, above=False)
        return self._run.watched().wait(limit)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the job is: `Job.progress` becomes `{"done": …, "total": …, "message": …}`, also for `follow`.

        Returns at once. It is written with that of other jobs, at most every `ServerConfig.progress_interval` seconds; what
        was told last before the job ended is always written, and before its outcome. Without effect once it has ended.

        Raises:
            InvalidValue: `done` or `total` is no finite number, or `message` no text of at most 10,000 characters.
        """
        said = {
            "done": _number("done", done),
            "total": None if total is None else _number("total", total),
            "message": _text("message", message),
        }
        if not self._run.ended:
            job = self._run.job
            self._reports.put(Report(job.id, job.claim_id, encode_json("progress", said)))

    @property
    def logger(self) -> LoggerAdapter[Logger]:
        """The logger "qml_nb.jobs", whose records carry `job_id`, `method`, `queue` and `attempt`."""
        job = self._run.job
        return _JobLogger(_log, {"job_id": job.id, "method": job.method, "queue": job.queue, "attempt": job.attempt})

    def __repr__(self) -> str:
        return f"JobContext({self._run.job!r})"


class _JobLogger(LoggerAdapter[Logger]):
    """Adds to the `extra` of a call, where Python's own takes its place."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs


def _number(field: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        raise InvalidValue(field, "to be a finite number", value)
    return value


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue(field, "to be text", value, "write str(…)")
    if len(value) > _LONGEST:
        raise InvalidValue(field, f"to have at most {_LONGEST:,} characters", len(value), "tell where the rest is")
    return value
