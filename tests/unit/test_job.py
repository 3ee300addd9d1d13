"""A job: an immutable snapshot of a call, made whole or not at all."""

import copy
import inspect
import pickle
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from typing import Any
from uuid import UUID, uuid4

import pytest

from qml_nb.errors import InvalidJob, UnknownOption
from qml_nb.job import CHANGEABLE, Job, JobFilter
from qml_nb.retry import RetryPolicy
from qml_nb.states import JobState
from tests.clock import NOW


class NoYesOrNo:
    """Like an array: comparing gives neither True nor False."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Level(IntEnum):
    HIGH = 7


def nested(depth: int) -> list[Any]:
    """A list in a list in a list…"""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


LOOP: list[Any] = []
LOOP.append(LOOP)
TWIN_LOOP: dict[str, Any] = {}
TWIN_LOOP.update(one=TWIN_LOOP, two=TWIN_LOOP)


# -- what is made


def test_a_job_needs_no_more_than_its_method() -> None:
    job = Job("work")

    assert (job.args, job.kwargs, job.queue, job.priority, job.max_retries) == ([], {}, "default", 0, 0)
    assert (job.timeout, job.metadata, job.job_type, job.state, job.attempt) == (None, {}, None, JobState.ENQUEUED, 0)
    assert (job.run_at, job.worker_id, job.lease_until, job.started_at, job.finished_at) == (None,) * 5
    assert (job.result, job.error, job.expires_at) == (None,) * 3
    assert (job.unique_key, job.unique_for, job.retry, job.extras, job.progress) == (None,) * 5
    assert UUID(job.id).version == 7


def test_created_at_is_now_unless_it_is_given() -> None:
    before = datetime.now(UTC) - timedelta(microseconds=1)
    job = Job("work")

    assert before <= job.created_at <= datetime.now(UTC) + timedelta(microseconds=1)
    assert Job("work", created_at=NOW).created_at == NOW


def test_instants_are_given_in_any_time_zone_and_come_back_in_utc() -> None:
    there = datetime(2030, 6, 1, 12, 0, 0, 123456, timezone(timedelta(hours=5, minutes=30)))

    job = Job("work", created_at=there)

    assert job.created_at == there
    assert job.created_at.tzinfo is UTC


@pytest.mark.parametrize(
    "spell", [str, str.upper, "{{{}}}".format, "urn:uuid:{}".format, lambda text: text.replace("-", "")]
)
def test_an_id_is_any_uuid_and_is_kept_in_one_spelling(spell: Any) -> None:
    id = str(uuid4())

    assert Job("work", id=spell(id)).id == id


def test_data_is_taken_as_it_is_when_the_job_is_made() -> None:
    args: list[Any] = [[1]]
    job = Job("work", args)
    args[0].append(2)
    job.args.append(3)

    assert job.args == [[1]]


def test_numbers_of_other_kinds_become_plain() -> None:
    job = Job("work", priority=Level.HIGH, max_retries=Level.HIGH, timeout=Level.HIGH)

    assert [type(value) for value in (job.priority, job.max_retries, job.timeout)] == [int, int, float]


@pytest.mark.parametrize("priority", [-(2**31), -1, 0, 2**31 - 1])
def test_a_priority_has_32_bits(priority: int) -> None:
    assert Job("work", priority=priority).priority == priority


@pytest.mark.parametrize("name", ["a", "x" * 255, "ü😀", "a b", " a", "a\nb", "\u202e"])
def test_a_name_may_be_any_text_up_to_255_characters(name: str) -> None:
    job = Job(name, queue=name, job_type=name)

    assert job.method == job.queue == job.job_type == name


@pytest.mark.parametrize("unique_for", [None, 0.001, 5])
def test_a_key_may_have_a_time_of_its_own(unique_for: float | None) -> None:
    job = Job("work", unique_key="ü😀", unique_for=unique_for)

    assert (job.unique_key, job.unique_for, job.retry) == ("ü😀", unique_for, None)
    assert type(job.unique_for) is (float if unique_for else type(None))


def test_a_retry_needs_no_key() -> None:
    job = Job("work", retry=RetryPolicy.fixed(3))

    assert (job.retry, job.unique_key, job.unique_for) == (RetryPolicy.fixed(3), None, None)


# -- what is refused, before anything is stored

BAD_NAMES = [
    ("", "to be a name"),
    (" \t\n", "to be a name"),
    ("a\0b", "to have no NUL character"),
    ("\ud800", "to be valid Unicode"),
    ("x" * 256, "to have at most 255 characters"),
    *[(value, "to be text") for value in (None, 5, b"bytes", ["list"], NoYesOrNo(), True)],
]
NAMES = [(field, value, text) for field in ("method", "queue") for value, text in BAD_NAMES]
NAMES += [
    (field, value, text) for field in ("job_type", "unique_key") for value, text in BAD_NAMES if value is not None
]
INTEGERS = [
    *[
        (field, value, "to be a whole number")
        for field in ("priority", "max_retries")
        for value in (1.0, "1", None, True, [1])
    ],
    ("priority", 2**31, "to be at most 2147483647"),
    ("priority", -(2**31) - 1, "to be at least -2147483648"),
    ("max_retries", -1, "to be at least 0"),
    ("max_retries", 2**31, "to be at most 2147483647"),
    ("priority", 10**5000, "to be at most 2147483647"),
]
SECONDS = [
    *[("timeout", value, "to be above 0 seconds") for value in (0, -1, -0.5, 0.0)],
    *[("timeout", value, "to be a finite number of seconds") for value in ("5", True, float("nan"), float("inf"), 1j)],
    *[("timeout", value, "to be at most 3153600000 seconds") for value in (1e10, 1e308, 10**400)],
    ("timeout", timedelta(seconds=5), "to be a finite number of seconds"),
]
LISTS = [
    ("args", value, "to be a list") for value in ("text", 5, None, {}, {1}, b"bytes", iter([]), range(3), NoYesOrNo())
]
DICTS = [(field, value, "to be a dict") for field in ("kwargs", "metadata") for value in ([], "text", 5, [("a", 1)])]
JSON = [
    ([float("nan")], "[0]", "to be a finite number"),
    ([1, {"x": [float("-inf")]}], "[1]['x'][0]", "to be a finite number"),
    *[
        ([value], "[0]", "to be plain JSON data")
        for value in ({1}, b"", NOW, object(), Level.HIGH, 1j, uuid4(), Job("x"))
    ],
    ([{1: 2}], "[0]", "to have text keys"),
    ([{None: 2}], "[0]", "to have text keys"),
    (["\ud800"], "", "to be valid Unicode"),
    ([{"\udfff": 1}], "", "to be valid Unicode"),
    ([10**5000], "", "to be JSON"),
    (nested(100), "[0][0]", "to nest at most 100 levels"),
    (LOOP, "[0][0]", "to nest at most 100 levels"),
    ([TWIN_LOOP], "[0]['one']['one']", "to nest at most 100 levels"),
]
EXTRAS = [
    *[("retry", value, "to be a RetryPolicy") for value in (5, "exponential", {"strategy": "none"}, RetryPolicy)],
    *[("unique_for", value, "to come with a unique_key") for value in (5, 0, "5")],
]
IDS = [
    ("id", value, "to be a UUID as text")
    for value in ("", "no", 5, uuid4(), b"x" * 16, "g" * 32, "0" * 31, "\ud800" * 32)
]
CREATED = [
    *[("created_at", value, "to be a datetime") for value in (5, "2030-01-01", NOW.date())],
    ("created_at", NOW.replace(tzinfo=None), "to be an aware datetime"),
    ("created_at", datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "to lie in the years 1 to 9999"),
    ("created_at", datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "to lie in the years 1 to 9999"),
]


def short(value: object) -> str:
    """A name for a parameter, the same in every run."""
    return value if isinstance(value, str) and value.isprintable() and len(value) < 30 else type(value).__name__


@pytest.mark.parametrize(
    ("field", "value", "expected"), NAMES + INTEGERS + SECONDS + LISTS + DICTS + EXTRAS + IDS + CREATED, ids=short
)
def test_a_bad_field_is_named_with_its_value_and_what_was_expected(field: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        Job(**{"method": "work"} | {field: value})

    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"expected {field} {expected}")
    assert ", got " in str(refusal.value)


@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan"), 1e10])
def test_a_bad_time_for_a_key_is_refused(value: Any) -> None:
    with pytest.raises(InvalidJob, match="expected unique_for to be"):
        Job("work", unique_key="key", unique_for=value)


@pytest.mark.parametrize(("value", "path", "expected"), JSON, ids=short)
def test_bad_data_is_named_by_its_place(value: list[Any], path: str, expected: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        Job("work", value)
    assert str(refusal.value).startswith(f"expected args{path}")
    assert refusal.value.expected.startswith(expected)

    for field in ("kwargs", "metadata"):
        with pytest.raises(InvalidJob, match=f"expected {field}"):
            Job(**{"method": "work", field: {"key": value}})


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"args": "text"}, "; write ['text']"),
        ({"args": [{1}]}, "; convert the set first"),
        ({"args": [NOW]}, "; convert the datetime.datetime first"),
        ({"args": [{1: 2}]}, "; JSON has no other keys, use str(key)"),
        ({"args": [float("nan")]}, "; JSON has no NaN or infinity, send None or text"),
        ({"args": LOOP}, "; flatten it, or send a reference"),
        ({"queue": ""}, "; leave it out for the default, or give at least one character"),
        ({"queue": "a\0"}, "; remove it, PostgreSQL can't store it"),
        ({"queue": "x" * 300}, "; shorten it from 300"),
        ({"id": "five"}, "; leave it out for a new one, or pass str(uuid.uuid4())"),
        ({"created_at": datetime(2030, 1, 1)}, "; add a time zone, as in datetime.now(UTC)"),  # noqa: DTZ001
        ({"timeout": "5"}, "; give a float of seconds"),
    ],
)
def test_the_message_ends_with_a_remedy(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        Job(**{"method": "work"} | options)

    assert str(refusal.value).endswith(remedy)


def test_a_huge_value_makes_a_short_message() -> None:
    with pytest.raises(InvalidJob) as refusal:
        Job("x" * 1_000_000)

    assert len(str(refusal.value)) < 300


def test_an_unknown_option_says_which_one_was_meant() -> None:
    with pytest.raises(UnknownOption, match=r"Job has no option 'max_retry', did you mean 'max_retries'\?"):
        Job("work", max_retry=3)  # type: ignore[call-arg]


# -- what a job is like


def test_a_job_does_not_change() -> None:
    job = Job("work")

    with pytest.raises(AttributeError):
        job.priority = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del job.priority
    with pytest.raises(AttributeError):
        job.anything = 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_job_survives_pickling(protocol: int) -> None:
    retry = RetryPolicy.fixed(3, retry_on=[OSError])
    job = Job("work", [{"ü": 2**70}], priority=3, created_at=NOW, unique_key="key", unique_for=5, retry=retry)

    assert pickle.loads(pickle.dumps(job, protocol)) == copy.copy(job) == copy.deepcopy(job) == job


def test_equal_fields_make_equal_jobs() -> None:
    job = Job("work", [1], created_at=NOW)
    twin = Job("work", [1], created_at=NOW, id=job.id)

    assert job == twin
    assert hash(job) == hash(twin)
    assert job != job.replace(args=[2])


def test_its_repr_shows_what_tells_it_from_others() -> None:
    job = Job("send", ["secret"], queue="mail", id="01a20c92-9c76-7e14-8436-424e4cbc1f07")

    assert repr(job) == "Job('send', id='01a20c92-9c76-7e14-8436-424e4cbc1f07', queue='mail', state='enqueued')"


def test_help_shows_the_arguments_and_not_the_fields() -> None:
    expected = ["method", "args", "kwargs", "queue", "priority", "max_retries", "timeout", "metadata", "job_type"]

    expected += ["unique_key", "unique_for", "retry"]
    assert list(inspect.signature(Job).parameters) == [*expected, "id", "created_at"]


# -- replace


CHANGES: list[tuple[str, Any]] = [
    *[(name, "new") for name in ("method", "queue", "job_type")],
    *[(name, {"new": 1}) for name in ("kwargs", "metadata")],
    *[(name, 9) for name in ("priority", "max_retries", "timeout")],
    *[("args", [2]), ("timeout", None), ("job_type", None), ("retry", RetryPolicy.none()), ("retry", None)],
]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_replace_changes_one_field_and_leaves_the_others(name: str, value: Any) -> None:
    options: dict[str, Any] = {"queue": "a", "priority": 1, "max_retries": 1, "timeout": 1, "job_type": "a"}
    extras: dict[str, Any] = {"unique_key": "a", "unique_for": 5, "retry": RetryPolicy.fixed(3)}
    job = Job("work", [1], {"a": 1}, metadata={"a": 1}, **options, **extras)

    changed = job.replace(**{name: value})

    assert getattr(changed, name) == value
    others = [field for field in Job.__struct_fields__ if field != CHANGEABLE[name]]
    assert [getattr(changed, field) for field in others] == [getattr(job, field) for field in others]
    assert (changed.unique_key, changed.unique_for) == ("a", 5)


def test_replace_checks_like_the_constructor() -> None:
    with pytest.raises(InvalidJob, match="expected priority to be at most 2147483647, got 2147483648"):
        Job("work").replace(priority=2**31)


def test_a_job_of_which_the_last_extra_was_taken_has_none() -> None:
    assert Job("work", retry=RetryPolicy.none()).replace(retry=None).extras is None


@pytest.mark.parametrize(
    "name",
    ["id", "unique_key", "unique_for", "progress", "state", "attempt", "created_at", "result", "args_json", "prioriy"],
)
def test_replace_refuses_what_may_not_change(name: str) -> None:
    with pytest.raises(UnknownOption, match=f"Job.replace has no option '{name}'"):
        Job("work").replace(**{name: 1})


# -- filters and states


FITTING: list[dict[str, Any]] = [{}, {"state": JobState.ENQUEUED}, {"queue": "q"}, {"method": "m"}]
FITTING += [{"state": JobState.ENQUEUED, "queue": "q", "method": "m"}]
OTHER: list[dict[str, Any]] = [
    {"state": JobState.FAILED},
    {"queue": "r"},
    {"method": "n"},
    {"queue": "q", "method": "n"},
]


@pytest.mark.parametrize(("wanted", "fits"), [(wanted, wanted in FITTING) for wanted in FITTING + OTHER])
def test_a_filter_matches_what_agrees_in_every_field_given(wanted: dict[str, Any], fits: bool) -> None:
    assert JobFilter(**wanted).matches(Job("m", queue="q")) is fits


def test_states_are_their_names() -> None:
    assert [str(state) for state in JobState] == [
        *["enqueued", "processing", "scheduled", "awaiting_retry"],
        *["succeeded", "failed", "deleted"],
    ]
    assert [state for state in JobState if state.is_final] == [JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED]
