"""When schedules are due: fields, names, leap days, and the days on which the clock jumps."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qml_nb import InvalidValue
from qml_nb.cron import NAMES, check_cron, check_timezone, latest, next_after

BERLIN = "Europe/Berlin"
ZONES = [
    "UTC",
    BERLIN,
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",
]


def ts(text: str, zone: str = "UTC") -> float:
    """The instant at which the clock of the zone shows this, the first time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def due(cron: str, start: str, many: int, zone: str = "UTC") -> list[str]:
    """The next instants after `start`, as the clock of the zone shows them."""
    at, found = ts(start, zone), []
    for _ in range(many):
        at = next_after(cron, zone, at)
        assert at is not None
        found.append(datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat())
    return found


def test_five_fields_are_due_at_second_zero() -> None:
    assert due("*/5 * * * *", "2026-01-01T00:03:20", 2) == ["2026-01-01T00:05:00+00:00", "2026-01-01T00:10:00+00:00"]


def test_of_six_fields_the_first_is_the_second() -> None:
    assert due("*/20 1 * * * *", "2026-01-01T00:01:19", 3) == [
        "2026-01-01T00:01:20+00:00",
        "2026-01-01T00:01:40+00:00",
        "2026-01-01T01:01:00+00:00",
    ]


def test_the_instant_itself_is_not_after_it_and_a_fraction_later_is() -> None:
    at = ts("2026-01-01T00:05:00")
    assert next_after("*/5 * * * *", "UTC", at) == at + 300
    assert next_after("*/5 * * * *", "UTC", at + 0.25) == at + 300
    assert next_after("*/5 * * * *", "UTC", at - 0.25) == at


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_its_expression(name: str) -> None:
    at = ts("2026-03-04T05:06:07")
    assert next_after(name, BERLIN, at) == next_after(f" {name.upper()} ", BERLIN, at)
    assert next_after(name, BERLIN, at) == next_after(NAMES[name], BERLIN, at)


def test_a_leap_day_comes_every_four_years_and_not_in_2100() -> None:
    assert due("0 12 29 2 *", "2026-01-01T00:00:00", 2) == ["2028-02-29T12:00:00+00:00", "2032-02-29T12:00:00+00:00"]
    assert due("0 12 29 2 *", "2096-03-01T00:00:00", 1) == ["2104-02-29T12:00:00+00:00"]


def test_days_of_month_and_week_that_are_both_restricted_are_either() -> None:
    assert due("0 0 13 * FRI", "2026-02-07T00:00:00", 3) == [
        *("2026-02-13T00:00:00+00:00", "2026-02-20T00:00:00+00:00", "2026-02-27T00:00:00+00:00")
    ]


def test_the_last_day_of_the_month_and_the_second_friday_have_names() -> None:
    assert due("0 0 L * *", "2028-01-31T12:00:00", 2) == ["2028-02-29T00:00:00+00:00", "2028-03-31T00:00:00+00:00"]
    assert due("0 0 * * FRI#2", "2026-01-01T00:00:00", 1) == ["2026-01-09T00:00:00+00:00"]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 30 2 * * *"])
def test_a_daily_time_that_the_clock_skips_in_spring_is_due_once_that_day(cron: str) -> None:
    assert due(cron, "2026-03-28T12:00:00", 3, BERLIN) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:30:00+02:00",
    ]


def test_all_that_falls_into_the_gap_is_due_once_at_its_end() -> None:
    assert due("*/7 0-59 2,4 * * *", "2026-03-29T01:00:00", 2, BERLIN) == [
        *("2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00")
    ]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 30 2 * * *"])
def test_a_daily_time_that_the_clock_shows_twice_in_autumn_is_due_once_that_day(cron: str) -> None:
    assert due(cron, "2026-10-24T12:00:00", 2, BERLIN) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_within_the_hour_that_comes_again_nothing_is_due_again() -> None:
    again = ts("2026-10-25T00:00:00") + 3600 + 900  # 02:15, the second time
    following = next_after("45 2 * * *", BERLIN, again)
    assert following == ts("2026-10-26T02:45:00", BERLIN)


def test_every_half_hour_stays_so_when_the_clock_jumps() -> None:
    for start in ("2026-03-29T00:00:00", "2026-10-25T00:00:00"):
        instants = [datetime.fromisoformat(text) for text in due("*/30 * * * *", start, 12, BERLIN)]
        assert {later - earlier for earlier, later in pairwise(instants)} == {timedelta(minutes=30)}


def test_a_day_that_a_zone_leaves_out_is_made_up_for() -> None:
    assert due("0 12 * * *", "2011-12-29T11:00:00", 3, "Pacific/Apia") == [
        *("2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00")
    ]


@pytest.mark.parametrize("cron", ["0 0 * 2 MON#5", "0 0 29 2 MON#5"])
def test_what_is_rare_is_found(cron: str) -> None:
    assert next_after(cron, "UTC", ts("2026-01-01T00:00:00")) is not None


def test_what_lies_beyond_the_calendar_is_never_due() -> None:
    assert next_after("0 0 1 1 *", "UTC", ts("9999-06-01T00:00:00")) is None
    assert next_after("0 0 1 1 *", "UTC", 1e300) is None


@pytest.mark.parametrize(
    ("cron", "named"),
    [
        ("", "to be a name"),
        ("* * * *", "5 or 6 fields"),
        ("* * * * * * *", "5 or 6 fields"),
        ("@fortnightly", "5 or 6 fields"),
        ("60 * * * *", "valid minute"),
        ("60 * * * * *", "valid second"),
        ("* 24 * * *", "valid hour"),
        ("* * 0 * *", "valid day-of-month"),
        ("* * 30 2 *", "valid day-of-month"),
        ("* * * 13 *", "valid month"),
        ("* * * * 8", "valid day-of-week"),
        ("*/0 * * * *", "valid minute"),
        ("H * * * *", "valid minute"),
        ("5-1 * * * *", "valid minute"),
        (None, "to be text"),
    ],
)
def test_a_bad_expression_is_refused_by_field_value_and_remedy(cron: object, named: str) -> None:
    with pytest.raises(InvalidValue, match=f"^expected cron .*{named}") as refusal:
        check_cron(cron)
    assert refusal.value.remedy
    assert repr(cron) in str(refusal.value)


@pytest.mark.parametrize(
    "zone", ["Berlin", "Europe", "../../etc/passwd", "/etc/passwd", "tzdata.zi", "a\0b", "\ud800", 5]
)
def test_an_unknown_time_zone_is_refused_by_field_value_and_remedy(zone: object) -> None:
    with pytest.raises(InvalidValue, match=r"^expected timezone ") as refusal:
        check_timezone(zone)
    assert refusal.value.remedy


@given(st.text("0123456789*/-,#LWMONJAN@ \u00b2", max_size=40))
@example("0 0 * * \u00b2L")
def test_whatever_is_given_is_an_expression_or_is_refused(text: str) -> None:
    try:
        cron = check_cron(text)
    except InvalidValue:
        return
    first = next_after(cron, BERLIN, 1.8e9)
    assert first is None or first > 1.8e9


numbers = st.lists(st.integers(0, 59), min_size=1, max_size=4, unique=True)
hours = st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True)
jumps = st.sampled_from([ts("2026-03-29T01:00:00"), ts("2026-10-25T01:00:00"), ts("2026-03-08T07:00:00")])
starts = st.builds(float.__add__, jumps, st.floats(-90_000, 90_000)) | st.floats(0, 4e9)


def listed(values: list[int]) -> str:
    return ",".join(map(str, values))


@given(numbers, numbers, st.just("*") | hours.map(listed), st.sampled_from(ZONES), starts)
def test_the_next_is_after_and_none_lies_between(seconds, minutes, hour, zone, start) -> None:
    cron = f"{listed(seconds)} {listed(minutes)} {hour} * * *"
    following = next_after(cron, zone, start)
    assert following is not None
    assert start < following <= start + 2 * 86_400
    assert following == int(following)
    for between in (start + (following - start) * share for share in (0.1, 0.5, 0.9)):
        if between < following:
            assert next_after(cron, zone, between) == following


@given(numbers, st.sampled_from(ZONES), starts)
def test_minutes_of_every_hour_are_due_whenever_the_clock_shows_them(minutes, zone, start) -> None:
    found, at = set(), start
    while (at := next_after(f"{listed(minutes)} * * * *", zone, at)) <= start + 7200:
        found.add(at)
    shown = (start // 60 * 60 + 60 * number for number in range(1, 121))
    assert found == {
        each
        for each in shown
        if start < each <= start + 7200 and datetime.fromtimestamp(each, ZoneInfo(zone)).minute in minutes
    }


@given(numbers, hours, st.sampled_from(ZONES), starts)
def test_times_of_the_day_are_due_each_day_once_or_at_the_end_of_a_gap(minutes, hour, zone, start) -> None:
    found, at = set(), start
    while (at := next_after(f"{listed(minutes)} {listed(hour)} * * *", zone, at)) <= start + 86_400:
        found.add(at)
    shown: set[str] = set()
    expected: set[float] = set()
    for each in (start // 60 * 60 + 60 * number for number in range(-1500, 1441)):
        now, before = (datetime.fromtimestamp(each - back, ZoneInfo(zone)) for back in (0, 60))
        passed = {
            (before.replace(tzinfo=None) + timedelta(minutes=number)).isoformat()
            for number in range(
                1, int((now.replace(tzinfo=None) - before.replace(tzinfo=None)) / timedelta(minutes=1)) + 1
            )
        }
        new = {wall for wall in passed - shown if int(wall[11:13]) in hour and int(wall[14:16]) in minutes}
        shown |= passed
        if new and start < each <= start + 86_400:
            expected.add(each)
    assert found == expected


@given(st.sampled_from(["*/7 * * * * *", "30 2 * * *", "0 0 29 2 *", "* * 3 1 1 *"]), st.sampled_from(ZONES), st.data())
def test_the_latest_is_the_one_that_has_no_next_up_to_then(cron, zone, data) -> None:
    first = next_after(cron, zone, data.draw(st.floats(1e9, 1.8e9)))
    until = first + data.draw(st.floats(0, 1e8))
    last = latest(cron, zone, first, until)
    assert first <= last <= until
    assert next_after(cron, zone, last) > until


def test_a_start_between_two_seconds_does_not_hide_the_latest() -> None:
    assert latest("* * * * * *", "UTC", 900.5, 901.2) == 901.0
    assert latest("*/5 * * * *", "UTC", 900.5, 901.2) == 900.5


def test_the_utc_day_of_an_instant_does_not_count_but_the_zone_s() -> None:
    following = next_after("0 0 1 * *", "Pacific/Kiritimati", ts("2026-01-15T00:00:00"))
    assert datetime.fromtimestamp(following, UTC).isoformat() == "2026-01-31T10:00:00+00:00"
