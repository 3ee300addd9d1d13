"""When a recurring schedule is due: cron expressions in time zones, on top of cronsim.

An expression has 5 fields (minute, hour, day of the month, month, day of the week), or 6, of which the first is the
second. A field is `*`, a number, a range `a-b`, a list `a,b`, any of these with a step `/n`, or a name (JAN, MON). A day of
the month may be `L` (the last) or `LW` (the last weekday), one of the week `5L` (the last Friday) or `5#2` (the second).
Where both days are restricted, either will do. `@hourly` and its like stand for the usual expressions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from math import floor
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from qml_nb.errors import InvalidValue
from qml_nb.validate import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
        "@monthly": "0 0 1 * *",
        "@weekly": "0 0 * * 0",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@hourly": "0 * * * *",
    }
)
"""Names that stand for an expression."""
_REMEDY = "write minute hour day month weekday, as in '30 2 * * MON-FRI'; the second may stand before them; or @daily"
_ANY_TIME: Final = datetime(2000, 1, 1)  # noqa: DTZ001, a wall clock without a zone
_MINUTE: Final = timedelta(minutes=1)


def check_cron(cron: object) -> str:
    """Return the expression, if it is one.

    >>> check_cron("*/5 * * * *"), check_cron("@hourly")
    ('*/5 * * * *', '@hourly')
    >>> check_cron("61 * * * *")
    Traceback (most recent call last):
    qml_nb.errors.InvalidValue: expected cron to have a valid minute, got '61 * * * *'; write minute hour day month weekday, as in '30 2 * * MON-FRI'; the second may stand before them; or @daily
    """
    text = check_name("cron", cron)
    _fields(text)
    return text


def check_timezone(timezone: object) -> str:
    """Return the name of the time zone, if it is known here.

    >>> check_timezone("Europe/Berlin")
    'Europe/Berlin'
    >>> check_timezone("Berlin")
    Traceback (most recent call last):
    qml_nb.errors.InvalidValue: expected timezone to be a known time zone, got 'Berlin'; did you mean 'Europe/Berlin'?
    """
    name = check_name("timezone", timezone)
    _zone(name)
    return name


def next_after(cron: str, timezone: str, ts: float) -> float | None:
    """Return the first instant after `ts` (POSIX seconds, both) at which the schedule is due; None: never again.

    Where minute and hour are given (neither begins with `*`), the wall clock counts: a time that the clock skips in spring
    is made up for as soon as it has jumped, once for all that fell into the gap, and one that it shows twice in autumn
    counts the first time. Else time goes on evenly: every five minutes stays every five minutes.

    >>> at = datetime.fromisoformat
    >>> after = lambda cron, ts: datetime.fromtimestamp(
    ...     next_after(cron, "Europe/Berlin", ts), ZoneInfo("Europe/Berlin")
    ... )
    >>> after("30 2 * * *", at("2026-03-28T12:00Z").timestamp()).isoformat()
    '2026-03-29T03:00:00+02:00'
    >>> after("30 2 * * *", at("2026-10-25T00:30Z").timestamp()).isoformat()
    '2026-10-26T02:30:00+01:00'

    Raises:
        InvalidValue: this is no expression, or the time zone is not known here.
    """
    fields, zone = _fields(cron), _zone(timezone)
    try:
        after = datetime.fromtimestamp(floor(ts), UTC).astimezone(zone)
        if fields.minute[0] == "*" or fields.hour[0] == "*":
            return next(CronSim(fields.text, after)).timestamp()
        return _next_on_the_wall(fields.text, after)
    except (StopIteration, OverflowError, ValueError):  # not within fifty years, or beyond the calendar
        return None


def latest(cron: str, timezone: str, first: float, until: float) -> float:
    """Return the last instant up to `until` at which the schedule is due, given that `first` is one.

    >>> latest("*/5 * * * *", "UTC", 0.0, 1_000.0)
    900.0
    """
    while floor(until) > floor(first):  # it is a whole second
        middle = (first + until) / 2
        due = next_after(cron, timezone, middle)
        if due is not None and due <= until:
            first = due
        else:
            until = middle
    return first


class _Fields(NamedTuple):
    """An expression as cronsim reads it, and the two fields that say whether the wall clock counts."""

    text: str
    minute: str
    hour: str


@lru_cache(1_000)
def _fields(cron: str) -> _Fields:
    text = NAMES.get(cron.strip().lower(), cron)
    try:
        CronSim(text, _ANY_TIME)
    except CronSimError as error:
        problem = str(error)
        wrong = problem.removeprefix("Bad ")
        expected = f"to have a valid {wrong}" if wrong != problem else "to have 5 or 6 fields"
        raise InvalidValue("cron", expected, cron, _REMEDY) from None
    minute, hour = text.split()[-5:-3]
    return _Fields(text, minute, hour)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise InvalidValue("timezone", "to be a known time zone", name, _zone_meant(name)) from None


def _zone_meant(name: str) -> str:
    known = {zone.rpartition("/")[2].lower(): zone for zone in sorted(available_timezones(), reverse=True)}
    near = get_close_matches(name.rpartition("/")[2].lower(), known, 1)
    return f"did you mean {known[near[0]]!r}?" if near else "write it as in 'Europe/Berlin'"


def _next_on_the_wall(fields: str, after: datetime) -> float | None:
    for wall in CronSim(fields, after.replace(tzinfo=None)):
        due = _instant(wall.replace(tzinfo=after.tzinfo))
        if due > after.timestamp():  # else the clock shows that time again
            return due
    return None


def _instant(wall: datetime) -> float:
    """Return when the clock shows that time, or would have to: then the end of the gap."""
    while wall != wall.astimezone(UTC).astimezone(wall.tzinfo):
        wall = wall.replace(second=0) + _MINUTE
    return wall.timestamp()
