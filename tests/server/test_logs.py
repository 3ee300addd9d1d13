"""Records say which job was running, and fit on a line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_nb import Job
from qml_nb.logs import FIELDS, JobFields, JSONFormatter
from qml_nb.server.context import job_context
from tests.server.waiting import run

log = logging.getLogger("tests.of.logs")


@pytest.fixture
def stream() -> Iterator[StringIO]:
    """What is logged, as lines of JSON."""
    handler = logging.StreamHandler(stream := StringIO())
    handler.addFilter(JobFields())
    handler.setFormatter(JSONFormatter())
    log.addHandler(handler)
    log.setLevel("DEBUG")
    yield stream
    log.removeHandler(handler)


def lines(stream: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_what_a_job_logs_says_which_job_it_is(storage, registry, serve, stream) -> None:
    @registry.task
    async def outer() -> None:
        log.info("in the task")
        await asyncio.to_thread(log.info, "in a thread of its own")
        await asyncio.create_task(inner())

    async def inner() -> None:
        log.info("in a child task")

    registry.register("plain", lambda: log.info("in a plain function"))
    server = await serve(queues=["q"])
    one, other = Job("outer", queue="q"), Job("plain", queue="q")
    await run(storage, one)
    await run(storage, other)
    log.info("outside")
    fields = {"queue": "q", "attempt": 1, "server": server.server_id}
    for line in lines(stream):
        said = {name: line[name] for name in FIELDS if name in line}
        match line["message"]:
            case "outside":
                assert said == {}
            case "in a plain function":
                assert said == {"job_id": other.id, "method": "plain"} | fields
            case _:
                assert said == {"job_id": one.id, "method": "outer"} | fields
    assert len(lines(stream)) == 5


async def test_the_logger_of_the_context_and_the_filter_agree(storage, registry, serve, stream) -> None:
    registry.register("work", lambda: job_context().logger.info("done", extra={"rows": 3}))
    handler = log.handlers[0]
    jobs = logging.getLogger("qml_nb.jobs")
    jobs.addHandler(handler)
    level = jobs.level
    jobs.setLevel("INFO")
    try:
        await serve()
        [job] = await run(storage, Job("work"))
    finally:
        jobs.removeHandler(handler)
        jobs.setLevel(level)
    [line] = lines(stream)
    assert (line["job_id"], line["method"], line["rows"], line["logger"]) == (job.id, "work", 3, "qml_nb.jobs")


def test_outside_of_jobs_the_fields_can_be_named_in_a_format() -> None:
    record = log.makeRecord("name", 20, "", 0, "hello", (), None, extra={"queue": "mine"})
    assert JobFields().filter(record) is True
    assert logging.Formatter("[%(job_id)s%(method)s] %(queue)s %(message)s").format(record) == "[] mine hello"


def test_a_record_is_an_object_on_one_line(stream) -> None:
    log.warning("two\nlines of %s", "ü😀", extra={"rows": 3, "deep": {"a": [1, None]}, "when": logging})
    [line] = lines(stream)
    assert line.pop("ts").endswith("+00:00")
    assert "module 'logging'" in line.pop("when")
    assert line == {
        "level": "WARNING",
        "logger": "tests.of.logs",
        "message": "two\nlines of ü😀",
        "rows": 3,
        "deep": {"a": [1, None]},
    }


def test_exceptions_and_stacks_are_text(stream) -> None:
    try:
        raise ValueError("no such address")
    except ValueError:
        log.exception("failed")
    log.info("here", stack_info=True)
    failed, here = lines(stream)
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("ValueError: no such address")
    assert "test_exceptions_and_stacks_are_text" in here["stack"]


class Stubborn:
    def __repr__(self) -> str:
        raise RuntimeError("no")


circle: list[object] = []
circle.append(circle)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        "\ud800",
        {1: 2},
        {"a": {("b",): 1}},
        {1, 2},
        circle,
        Stubborn(),
        [Stubborn()],
        b"\xff",
        2**200,
    ],
)
def test_whatever_a_record_carries_it_is_written(stream, value) -> None:
    log.info("hello", extra={"what": value})
    [line] = lines(stream)
    assert line["message"] == "hello"
    assert "what" in line


@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.none() | st.integers()))
def test_a_line_has_no_end_within_and_comes_back(message, extra) -> None:
    record = logging.LogRecord("name", 20, "", 0, message, (), None)
    vars(record).update({f"x{name}": value for name, value in extra.items()})
    line = JSONFormatter().format(record)
    assert not {"\n", "\r"} & set(line)
    assert json.loads(line)["message"] == message
