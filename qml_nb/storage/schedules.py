"""Recurring schedules: the part of `Storage` that says which jobs come again and again. Servers fire them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import MsgspecError, json
from msgspec.structs import replace

from qml_nb.cron import check_cron, check_timezone, next_after
from qml_nb.errors import InvalidJob, InvalidValue, StorageError
from qml_nb.job import Job
from qml_nb.storage.backend import MISFIRE, Recurring
from qml_nb.storage.checks import new_jobs
from qml_nb.validate import check_bool, check_name, instant, posix

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from qml_nb.storage.backend import Backend

_Schedules: TypeAlias = list[Recurring]  # `list` is a method of the face
_TRIES = 100
"""Beyond these it is not others who change it: it is stored in a form of which this version reads only a part."""


class Schedules:
    """Methods of `Storage`."""

    backend: Backend

    async def schedule_recurring(
        self,
        id: str,
        cron: str,
        job: Job,
        *,
        timezone: str = "UTC",
        misfire: str = "once",
        now: datetime | None = None,
    ) -> Recurring:
        """Let a job like this one be enqueued whenever `cron` says so, by the clock of the time zone; see `qml_nb.cron`.

        Each time, it is a new job, created at the instant it was due, with `metadata` that tells `schedule` (this id) and
        `scheduled_for`. Firings that are more than ten seconds late, as no server ran, were missed: `misfire` says
        whether to "skip" them, to make up for all of them "once", or for "all" of them.

        One with the same id is replaced, and keeps its place: with the same expression and time zone it goes on where it
        was, so call this at each start of a program. One that is paused stays so.

        Raises:
            InvalidValue: of the expression, the time zone or the policy; as InvalidJob, of the job.
        """
        [job] = new_jobs((job,))
        new = Recurring(
            check_name("id", id),
            check_cron(cron),
            job.method,
            args_json=job.args_json,
            kwargs_json=job.kwargs_json,
            queue=job.queue,
            priority=job.priority,
            max_retries=job.max_retries,
            timezone=check_timezone(timezone),
            misfire=_check_misfire(misfire),
            timeout=job.timeout,
            metadata_json=job.metadata_json,
            job_type=job.job_type,
            extras=job.extras,
        )

        def renewed(old: Recurring | None, ts: float) -> Recurring:
            return _begun(new, ts) if old is None else _in_place_of(old, new, ts)

        stored = await self._swap(new.id, renewed, posix(now))
        assert stored is not None
        return stored

    async def upsert_recurring(self, schedule: Recurring, *, now: datetime | None = None) -> None:
        """Store a recurring schedule, in place of one with the same id; without a `next_ts`, that is computed.

        Raises:
            InvalidValue: one of its fields has a value that it can't have.
        """
        checked(schedule)
        if schedule.next_ts is None:
            ts, _ = await self.backend.due_recurring(1, now=posix(now))
            schedule = _begun(schedule, ts)
        await self.backend.put_recurring(schedule)

    async def pause_recurring(self, schedule_id: str) -> bool:
        """Fire the schedule no more until it is resumed. False: it was paused, or there is none."""

        def paused(old: Recurring | None, _: float) -> Recurring | None:
            return replace(old, enabled=False) if old is not None and old.enabled else None

        return await self._swap(check_name("schedule_id", schedule_id), paused) is not None

    async def resume_recurring(self, schedule_id: str, *, now: datetime | None = None) -> bool:
        """Fire a paused schedule again, from now on: what was due meanwhile is not made up for. False: it was not paused.

        Raises:
            InvalidValue: it can't be fired by this version, as its expression can't be read.
        """

        def resumed(old: Recurring | None, ts: float) -> Recurring | None:
            return None if old is None or old.enabled else _begun(replace(checked(old), enabled=True), ts)

        return await self._swap(check_name("schedule_id", schedule_id), resumed, posix(now)) is not None

    async def remove_recurring(self, schedule_id: str) -> bool:
        """Remove a recurring schedule. False: no such one."""
        return await self.backend.drop_recurring(schedule_id)

    async def list_recurring(self) -> _Schedules:
        """Return all recurring schedules, by id."""
        return await self.backend.list_recurring()

    async def _swap(
        self, schedule_id: str, change: Callable[[Recurring | None, float], Recurring | None], now: float | None = None
    ) -> Recurring | None:
        """Store what `change` makes of the schedule as it stands, and of the storage's time; None: nothing was to do."""
        for _ in range(_TRIES):
            ts, _due = await self.backend.due_recurring(1, now=now)
            old = next((each for each in await self.backend.list_recurring() if each.id == schedule_id), None)
            new = change(old, ts)
            if new is None or new == old or await self.backend.swap_recurring(old, new, now=now):
                return new  # else a server fired it meanwhile, or somebody else changed it
        raise StorageError(f"recurring schedule {schedule_id!r} is changed by others all the time; try again later")


def checked(schedule: Recurring) -> Recurring:
    """Return the schedule, if a server can fire it."""
    if not isinstance(schedule, Recurring):
        raise InvalidValue("schedule", "to be a Recurring", schedule, "or call schedule_recurring")
    check_name("id", schedule.id)
    check_cron(schedule.cron)
    check_timezone(schedule.timezone)
    _check_misfire(schedule.misfire)
    check_bool("enabled", schedule.enabled)
    for field in ("next_ts", "last_ts"):
        _check_ts(field, getattr(schedule, field))
    job_of(schedule)
    return schedule


def job_of(schedule: Recurring, metadata: dict[str, Any] | None = None, created_at: datetime | None = None) -> Job:
    """Return a new job of the schedule, with further metadata.

    Raises:
        InvalidJob: the schedule has no right fields for one.
    """
    extras = schedule.extras
    job = Job(
        schedule.method,
        _decoded("args_json", schedule.args_json, list),
        _decoded("kwargs_json", schedule.kwargs_json, dict),
        queue=schedule.queue,
        priority=schedule.priority,
        max_retries=schedule.max_retries,
        timeout=schedule.timeout,
        metadata=_decoded("metadata_json", schedule.metadata_json, dict) | (metadata or {}),
        job_type=schedule.job_type,
        unique_key=None if extras is None else extras.unique_key,
        unique_for=None if extras is None else extras.unique_for,
        retry=None if extras is None else extras.retry,
        created_at=created_at,
    )
    return replace(job, args_json=schedule.args_json, kwargs_json=schedule.kwargs_json)  # to the byte


def _decoded(field: str, encoded: bytes, kind: type) -> Any:
    try:
        return json.decode(encoded, type=kind)
    except (MsgspecError, TypeError):
        raise InvalidJob(field, f"to be a {kind.__name__} as JSON", encoded) from None


def _check_misfire(misfire: object) -> str:
    if misfire not in MISFIRE:
        raise InvalidValue("misfire", f"to be one of {', '.join(MISFIRE)}", misfire)
    return str(misfire)


def _check_ts(field: str, ts: float | None) -> None:
    try:
        instant(ts)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidValue(field, "to be POSIX seconds in the years 1 to 9999", ts, "leave it out") from None


def _begun(schedule: Recurring, ts: float) -> Recurring:
    return replace(schedule, next_ts=next_after(schedule.cron, schedule.timezone, ts))


def _in_place_of(old: Recurring, new: Recurring, ts: float) -> Recurring:
    """Return `new` in the place of `old`. One that was disabled because it could not be fired has no next instant."""
    given_up = not old.enabled and old.next_ts is None
    if given_up or (old.cron, old.timezone) != (new.cron, new.timezone):
        return _begun(replace(new, last_ts=old.last_ts, enabled=old.enabled or given_up), ts)
    return replace(new, next_ts=old.next_ts, last_ts=old.last_ts, enabled=old.enabled)
