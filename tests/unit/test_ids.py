"""Ids are uuid7 text: valid, unique over threads and forks, ascending, whatever the clock does."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from qml_nb import ids
from qml_nb.ids import new_id

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the clock of a stream of ids of its own, in milliseconds."""
    monkeypatch.setattr(ids, "_stream", ids._Stream())
    return lambda ms: monkeypatch.setattr(ids, "time_ns", lambda: ms * 1_000_000)


def test_the_layout_is_that_of_rfc_9562() -> None:
    for _ in range(1_000):
        id = new_id()
        parsed = UUID(id)
        assert (parsed.version, parsed.variant) == (7, RFC_4122)
        assert str(parsed) == id


def test_the_first_48_bits_are_the_milliseconds() -> None:
    before = time_ns() // 1_000_000
    stamp = UUID(new_id()).int >> 80
    after = time_ns() // 1_000_000

    assert before <= stamp <= after


@pytest.mark.parametrize("ms", [0, 1, 0xFFFF, 0x10000, 1_893_456_000_000, 2**48 - 1])
def test_any_instant_fits(clock: Any, ms: int) -> None:
    clock(ms)

    assert UUID(new_id()).int >> 80 == ms


def test_ids_ascend_and_differ() -> None:
    made = [new_id() for _ in range(50_000)]

    assert made == sorted(set(made))


def test_ids_ascend_within_one_millisecond(clock: Any) -> None:
    clock(1_000)
    made = [new_id() for _ in range(1_000)]

    assert made == sorted(set(made))
    assert {UUID(id).int >> 80 for id in made} == {1_000}


def test_ids_ascend_when_the_clock_steps_back(clock: Any) -> None:
    made = []
    for ms in (1_000, 1_001, 400, 401, 1_000, 1_001, 1_002, 0):
        clock(ms)
        made += [new_id(), new_id()]

    assert made == sorted(set(made))


def test_ids_of_eight_threads_differ_and_ascend_in_each() -> None:
    start = threading.Barrier(8)

    def make(_: int) -> list[str]:
        start.wait()
        return [new_id() for _ in range(20_000)]

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(make, range(8)))
    finally:
        sys.setswitchinterval(usual)

    assert len({id for mine in made for id in mine}) == 8 * 20_000
    assert all(mine == sorted(mine) for mine in made)


def forked(many: int) -> Iterator[list[str]]:
    """The ids that each of several forked children makes."""
    for _ in range(many):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it warns of threads, of which the child uses none
            child = os.fork()
        if not child:
            os.write(writer, "\n".join(new_id() for _ in range(1_000)).encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as pipe:
            yield pipe.read().split()
        assert os.waitpid(child, 0)[1] == 0


def test_ids_of_forked_processes_differ() -> None:
    mine = [new_id()]
    made = list(forked(4))
    mine += [new_id() for _ in range(1_000)]

    assert [len(theirs) for theirs in made] == [1_000] * 4
    assert len({id for each in [mine, *made] for id in each}) == 5_001


def test_a_forked_process_starts_a_stream_of_its_own() -> None:
    middles = {id[14:23] for each in forked(4) for id in each} | {new_id()[14:23]}

    assert len(middles) == 5


def test_they_work_where_nothing_forks() -> None:
    """As on Windows, where the os module has neither `fork` nor `register_at_fork`."""
    script = "import os; del os.fork, os.register_at_fork; import qml_nb; print(qml_nb.Job('work').id)"

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert UUID(done.stdout.strip()).version == 7
