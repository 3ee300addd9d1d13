"""What a failed job says: type and message first, then the traceback, as text that every storage can keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_nb import Job, JobState, RetryPolicy
from qml_nb.server.error_text import MAX_ERROR, describe
from tests.server.waiting import full_house, run


def caught(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as raised:
        return raised


async def test_an_error_is_stored_with_its_traceback(storage, registry, serve) -> None:
    def innermost() -> None:
        raise ValueError("no such address")

    @registry.task
    async def send() -> None:
        innermost()

    await serve()
    [job] = await run(storage, Job("send"))
    assert job.state is JobState.FAILED
    assert job.error.startswith("ValueError: no such address\n\nTraceback (most recent call last):")
    assert "in innermost" in job.error
    assert job.error.endswith("ValueError: no such address")


async def test_a_method_that_nobody_registered_fails_at_once_and_names_the_one_that_was_meant(
    storage, registry, serve
) -> None:
    registry.register("send_email", print)
    server = await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("send_emial", max_retries=5))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error.startswith(
        "qml_nb.errors.UnknownMethod: no task is registered for method 'send_emial', did you mean 'send_email'?"
    )
    await full_house(server, 2)


@pytest.mark.parametrize(
    ("result", "word"),
    [({1, 2}, "set"), (float("nan"), "nan"), ({1: 2}, "text keys"), (b"bytes", "bytes"), ("\ud800", "surrogate")],
    ids=["set", "nan", "int keys", "bytes", "surrogate"],
)
async def test_a_result_that_json_can_not_carry_fails_the_job_without_a_retry(
    storage, registry, serve, result, word
) -> None:
    registry.register("odd", lambda: result)
    await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("odd", max_retries=5))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error.startswith("qml_nb.errors.InvalidValue: expected result")
    assert word in job.error


async def test_a_long_message_loses_its_middle(storage, registry, serve) -> None:
    @registry.task
    async def shout() -> None:
        raise ValueError("first" + "x" * 10_000_000 + "last")

    await serve()
    [job] = await run(storage, Job("shout"))
    assert len(job.error) <= MAX_ERROR
    assert job.error.startswith("ValueError: first")
    assert job.error.endswith("last")


async def test_an_error_whose_message_can_not_be_made_still_ends_its_job(storage, registry, serve) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    @registry.task
    async def fail() -> None:
        raise Mute

    server = await serve()
    [job] = await run(storage, Job("fail"))
    assert job.state is JobState.FAILED
    assert "Mute" in job.error
    await full_house(server, 2)


@given(st.text(st.sampled_from("aü\n\0\ud800\udfff"), max_size=50), st.integers(0, 3_000))
def test_every_error_is_text_that_a_database_can_keep(text: str, times: int) -> None:
    told = describe(caught(ValueError(text * times)))
    assert len(told) <= MAX_ERROR
    assert "\0" not in told
    told.encode()


def test_a_short_message_of_odd_characters_is_kept_readable() -> None:
    assert describe(ValueError("a\0b\ud800")) == "ValueError: a\\x00b\\ud800"


def test_the_error_itself_comes_first_and_its_cause_in_the_traceback() -> None:
    try:
        try:
            raise KeyError("address")
        except KeyError as cause:
            raise ValueError("no address") from cause
    except ValueError as error:
        told = describe(error)
    assert told.startswith("ValueError: no address\n\n")
    assert "KeyError: 'address'" in told


def test_notes_and_groups_are_told() -> None:
    error = ExceptionGroup("two of them", [ValueError("one"), caught(KeyError("two"))])
    error.add_note("in the third row")
    told = describe(caught(error))
    assert told.startswith("ExceptionGroup: two of them")
    for part in ("in the third row", "ValueError: one", "KeyError: 'two'"):
        assert part in told


def test_a_deep_recursion_is_told_briefly() -> None:
    def down() -> None:
        down()

    with pytest.raises(RecursionError) as raised:
        down()
    told = describe(raised.value)
    assert told.startswith("RecursionError: maximum recursion depth exceeded")
    assert len(told) < 5_000


def test_a_long_chain_of_causes_is_told_within_the_bound() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 2_000):
        error, cause = caught(ValueError(number)), error
        error.__cause__ = cause
    told = describe(error)
    assert told.startswith("ValueError: 1999\n")
    assert len(told) <= MAX_ERROR


class _Hostile(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")

    @property
    def __module__(cls) -> str:
        raise RuntimeError("no module")


class Hostile(Exception, metaclass=_Hostile):
    def __str__(self) -> str:
        raise SystemExit(1)

    def __repr__(self) -> str:
        raise KeyboardInterrupt


def test_not_even_an_error_without_a_name_can_not_be_told() -> None:
    assert describe(caught(Hostile()))


async def test_an_error_that_can_not_be_looked_at_takes_no_slot_away(storage, registry, serve) -> None:
    @registry.task
    async def fail() -> None:
        raise Hostile

    server = await serve(retry=RetryPolicy.fixed(0, give_up_on=("ValueError",)))
    jobs = await run(storage, *(Job("fail", max_retries=1) for _ in range(3)))
    assert {job.state for job in jobs} == {JobState.FAILED}
    await full_house(server, 2)
