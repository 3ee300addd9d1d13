"""Arguments, metadata and results are JSON, and come back byte-equal after any number of moves."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import claim


async def journey(storage: Storage, value: Any) -> Job:
    """Send a value as argument, keyword, metadata and result through every move, and return the job at the end."""
    job = Job("work", [value], {"value": value}, metadata={"value": value}, max_retries=9)
    sent = (job.args_json, job.kwargs_json, job.metadata_json)
    await storage.enqueue(job)
    await storage.retry(await claim(storage, lease=10), 5, now=NOW)
    await storage.sweep(now=at(5))
    await claim(storage, lease=10, now=5)
    await storage.sweep(now=at(16))
    claimed = await claim(storage, now=16)
    assert (claimed.args_json, claimed.kwargs_json, claimed.metadata_json) == sent
    assert await storage.complete(claimed, value, now=at(17))
    end = await storage.get(job.id)
    assert end is not None
    assert (end.args_json, end.kwargs_json, end.metadata_json) == sent
    assert end.state is JobState.SUCCEEDED
    return end


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON data, types and the sign of zero included."""
    return json.dumps(one) == json.dumps(other)


NUMBERS = [0, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 2**70, -(2**70), 10**300]
FLOATS = [0.0, -0.0, 1.0, 0.1 + 0.2, 1e-320, 5e-324, 1.7976931348623157e308, 1e16, 1e-7, 123456789.123456789, math.pi]
TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "ü",
    "😀",
    "\U0010ffff",
    "\u202eright to left\u200f",
    "\u2028\u2029",
    "\ufeff",
    "\ufffe",
    "e\u0301",
]
TEXTS += [
    '"',
    "\\",
    "\\u0000",
    "\r\n\t\x07\x7f",
    "</script>",
    "%s {x} $1 '; --",
    "null",
    "x" * 1_000_000,
    "😀" * 250_000,
]
NESTED: list[Any] = [
    [],
    {},
    [[]],
    [{}],
    {"": {}},
    [None, True, False],
    {"a": [], "b": {}},
    [[], [[]], {"c": [1, {"d": None}]}],
]
KEYS: list[Any] = [{"": 1}, {"\0": 1}, {"ü😀": 1}, {"b": 1, "a": 2}, {"1": 1, "01": 2}, {"a b": 1, "a.b": 2, "$a": 3}]


@pytest.mark.parametrize(
    "value", [None, True, False, *NUMBERS, *FLOATS, *TEXTS, *NESTED, *KEYS], ids=lambda value: repr(value)[:30]
)
async def test_a_value_comes_back_as_it_went(storage: Storage, value: Any) -> None:
    job = await journey(storage, value)

    assert all(same(back, value) for back in (job.args[0], job.kwargs["value"], job.metadata["value"], job.result))


async def test_a_million_numbers_come_back(storage: Storage) -> None:
    value = list(range(200_000))

    assert (await journey(storage, value)).result == value


async def test_the_deepest_nesting_that_is_accepted_comes_back(storage: Storage) -> None:
    value: list[Any] = []
    for _ in range(90):
        value = [value]

    assert (await journey(storage, value)).args == [value]


async def test_tuples_come_back_as_lists(storage: Storage) -> None:
    assert (await journey(storage, (1, (2, ())))).result == [1, [2, []]]


async def test_empty_arguments_come_back_empty_and_of_their_kind(storage: Storage) -> None:
    await storage.enqueue(Job("work"))
    claimed = await claim(storage)

    assert (claimed.args, claimed.kwargs, claimed.metadata) == ([], {}, {})


@pytest.mark.parametrize("result", [[], {}, "", 0, False, -0.0])
async def test_an_empty_result_is_not_taken_for_none(storage: Storage, result: Any) -> None:
    assert same((await journey(storage, result)).result, result)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=plain)
async def test_any_json_comes_back_as_it_went(storage: Storage, value: Any) -> None:
    """All examples share one storage: each is a job of its own, and the only one that waits."""
    job = await journey(storage, value)

    assert all(same(back, value) for back in (job.args[0], job.kwargs["value"], job.metadata["value"], job.result))
