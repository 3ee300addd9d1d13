"""Recurring schedules are fired: at each instant at which one is due, one job comes in, whichever server is the first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from logging import getLogger
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from qml_nb.cron import latest, next_after
from qml_nb.errors import StorageError
from qml_nb.storage.schedules import checked, job_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.job import Job
    from qml_nb.storage.backend import Backend, Recurring

log = getLogger("qml_nb.server")

GRACE: Final = 10.0
"""Seconds after which a firing that did not happen counts as missed."""
MOST: Final = 1_000
"""The most jobs that one schedule gives at a time; what it owes beyond that, it gives the next time."""
_SCHEDULES: Final = 100


async def fire_due(backend: Backend, now: float | None = None) -> int:
    """Enqueue the jobs of all schedules that are due, each exactly once over all servers. Returns how many.

    A schedule and its jobs are written in one step, so whoever dies between has done nothing. One that can't be fired by
    this version is disabled.

    Raises:
        StorageError: of some schedules, which stay due; the others were fired.
    """
    ts, due = await backend.due_recurring(_SCHEDULES, now=now)
    fired, refusal = 0, None
    for schedule in due:
        try:
            fired += await _fire(backend, schedule, ts, now)
        except StorageError as error:
            refusal = error
        await asyncio.sleep(0)  # in memory, nothing else gives the loop its turn
    if refusal is not None:
        raise refusal
    return fired


async def _fire(backend: Backend, old: Recurring, ts: float, now: float | None) -> int:
    try:
        instants, next_ts = owed(checked(old), ts)
        jobs = [_job(old, instant) for instant in instants]
    except Exception as error:  # of values that a storage may hold, whoever wrote them
        if await backend.swap_recurring(old, replace(old, enabled=False, next_ts=None), now=now):
            log.error("recurring schedule %r can't be fired, and was disabled: %s", old.id, error)
        return 0
    new = replace(old, next_ts=next_ts, last_ts=instants[-1] if instants else old.last_ts)
    return len(jobs) if await backend.swap_recurring(old, new, jobs, now=now) else 0


def owed(schedule: Recurring, ts: float) -> tuple[Sequence[float], float | None]:
    """Return the instants up to `ts` for which the schedule owes a job, in order, and when it is due again.

    >>> from qml_nb.storage.backend import Recurring
    >>> hourly = Recurring("report", "@hourly", "report", next_ts=3_600.0)
    >>> owed(hourly, 3_605.0), owed(hourly, 4 * 3_600.0 + 60)
    (([3600.0], 7200.0), ([14400.0], 18000.0))
    """
    instants: list[float] = []
    at, missed = schedule.next_ts, ts - GRACE
    if at is not None and at < missed and schedule.misfire != "all":
        if schedule.misfire == "once":
            instants.append(latest(schedule.cron, schedule.timezone, at, missed))
        at = next_after(schedule.cron, schedule.timezone, missed)
    while at is not None and at <= ts and len(instants) < MOST:
        instants.append(at)
        at = next_after(schedule.cron, schedule.timezone, at)
    return instants, at


def _job(schedule: Recurring, instant: float) -> Job:
    meant_for = datetime.fromtimestamp(instant, UTC)
    return job_of(schedule, {"schedule": schedule.id, "scheduled_for": meant_for.isoformat()}, meant_for)
