"""What waits in a storage, and whether that is what a test expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from qml_nb.errors import InvalidValue
from qml_nb.states import ENQUEUED, SCHEDULED
from qml_nb.validate import check_int, check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from qml_nb.job import Job
    from qml_nb.states import JobState
    from qml_nb.storage.storage import Storage

_PAGE = 1_000
_SHOWN = 20


async def enqueued(
    storage: Storage,
    method: str | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> list[Job]:
    """Return the jobs that wait or are scheduled, those made first first, and match what is given.

    Arguments are compared as a whole; `unittest.mock.ANY` stands for what does not matter.
    """
    wanted = _Wanted(method, args, kwargs, queue)
    return [job for job in await _all(storage, queue) if wanted.is_met_by(job)]


async def assert_enqueued(
    storage: Storage,
    method: str | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    scheduled_in: float | None = None,
    within: float = 5.0,
    times: int | None = None,
) -> list[Job]:
    """Return the jobs that `enqueued` finds, if there is one; else raise an AssertionError that shows what there is.

    With `times` there must be so many, exactly. With `scheduled_in` they must be due so many seconds after they were
    made, give or take `within`; what is not scheduled is due after 0.
    """
    wanted = _Wanted(method, args, kwargs, queue, _seconds(scheduled_in), check_seconds("within", within, above=False))
    there = await _all(storage, None)
    found = [job for job in there if wanted.is_met_by(job)]
    if times is None and not found:
        raise AssertionError(f"expected {wanted} to be enqueued; {_shown(there, wanted)}")
    if times is not None and len(found) != check_int("times", times, 0):
        raise AssertionError(
            f"expected {wanted} to be enqueued {times} times, got {len(found)}; {_shown(there, wanted)}"
        )
    return found


async def assert_not_enqueued(
    storage: Storage,
    method: str | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> None:
    """Raise an AssertionError that shows what there is, if `enqueued` finds a job."""
    wanted = _Wanted(method, args, kwargs, queue)
    there = await _all(storage, None)
    if found := sum(wanted.is_met_by(job) for job in there):
        raise AssertionError(f"expected {wanted} not to be enqueued, got {found}; {_shown(there, wanted)}")


class _Wanted(Struct):
    """What is asked for. Its text is that of an error."""

    method: str | None
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    queue: str | None
    scheduled_in: float | None = None
    within: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.args, str):
            raise InvalidValue("args", "to be a list", self.args, f"write [{self.args!r}]")

    def is_met_by(self, job: Job) -> bool:
        return (
            self.method in (None, job.method)
            and self.queue in (None, job.queue)
            and (self.args is None or list(self.args) == job.args)
            and (self.kwargs is None or dict(self.kwargs) == job.kwargs)
            and (self.scheduled_in is None or abs(due_in(job) - self.scheduled_in) <= self.within)
        )

    def __str__(self) -> str:
        name = "a job" if self.method is None else self.method
        call = "" if self.args is None and self.kwargs is None else _call(self.args, self.kwargs)
        where = "" if self.queue is None else f" in queue {self.queue!r}"
        when = "" if self.scheduled_in is None else f" due in {self.scheduled_in:g} s (± {self.within:g} s)"
        return f"{name}{call}{where}{when}"


def due_in(job: Job) -> float:
    """Return after how many seconds from its making the job is due."""
    return max((job.run_ts or 0.0) - job.created_ts, 0.0)


def shown(job: Job) -> str:
    """Say what a job is, as a call.

    >>> from qml_nb import Job
    >>> shown(Job("send_email", ["ann@example.com"], {"copy": True}, queue="email"))
    "send_email('ann@example.com', copy=True) in queue 'email'"
    """
    when = f", due in {due_in(job):.3g} s" if job.state is SCHEDULED else ""
    return f"{job.method}{_call(job.args, job.kwargs)} in queue {job.queue!r}{when}"


def _call(args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> str:
    positional = ["*"] if args is None else [repr(arg) for arg in args]
    named = ["**"] if kwargs is None else [f"{name}={value!r}" for name, value in kwargs.items()]
    return f"({', '.join([*positional, *named])})"


def _shown(there: Sequence[Job], wanted: _Wanted) -> str:
    """List what there is, the most alike first."""
    if not there:
        return "nothing is"
    alike = sorted(there, key=lambda job: (job.method != wanted.method, job.queue != wanted.queue))
    lines = [f"\n  {shown(job)}" for job in alike[:_SHOWN]]
    more = f"\n  … and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return f"there {'is' if len(there) == 1 else 'are'}{''.join(lines)}{more}"


def _seconds(value: float | None) -> float | None:
    return None if value is None else check_seconds("scheduled_in", value, above=False)


async def _all(storage: Storage, queue: str | None) -> list[Job]:
    found = [job for state in (ENQUEUED, SCHEDULED) async for job in _pages(storage, state, queue)]
    return sorted(found, key=lambda job: job.id)


async def _pages(storage: Storage, state: JobState, queue: str | None) -> AsyncIterator[Job]:
    after = None
    while page := await storage.list(state, queue, limit=_PAGE, after=after):
        for job in page:
            yield job
        after = page[-1].id
