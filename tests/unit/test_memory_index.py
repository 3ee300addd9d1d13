"""The memory storage's index of jobs is one mapping, however it is cut into parts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from qml_nb.job import Job
from qml_nb.storage import MemoryStorage
from qml_nb.storage.memory import admission
from qml_nb.storage.memory.index import JobIndex
from tests.contract.conftest import memory as new_store
from tests.contract.test_model import Histories

numbers = st.integers(0, 30)


def numbered(number: int) -> Job:
    """A job whose id sorts by its number."""
    return Job("work", id=f"{number:032x}")


def put(index: JobIndex, job: Job) -> Job:
    part = index.part(job.id)
    part[job.id] = job
    index.older += part is not index.newest
    return job


@given(st.lists(st.tuples(st.sampled_from(["put", "put", "remove", "replace", "begin"]), numbers), max_size=60))
def test_it_holds_what_a_dict_holds(steps: list[tuple[str, int]]) -> None:
    index, plain = JobIndex(), dict[str, Job]()
    for what, number in steps:
        job = numbered(number)
        known = job.id in plain
        match what:
            case "put" if not known:
                plain[job.id] = put(index, job)
            case "remove" if known:
                index.remove(job.id)
                del plain[job.id]
            case "replace" if known:
                plain[job.id] = job.replace(priority=len(plain))
                index.replace(plain[job.id])
            case "begin":
                index.begin_part()

        assert len(index) == len(plain)
        assert {found.id: found for found in index} == plain
        assert all(index.get(numbered(n).id) is plain.get(numbered(n).id) for n in range(31))
        assert all((numbered(n).id in index) is (numbered(n).id in plain) for n in range(31))


def test_parts_that_ran_empty_are_dropped() -> None:
    index = JobIndex()
    for number in range(100):
        job = numbered(number)
        put(index, job)
        index.begin_part()
        index.remove(job.id)

    assert len(index._parts) <= 3


@pytest.mark.timeout(600)  # as in the contract
def test_any_history_agrees_with_the_model_in_the_smallest_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PART", 1)

    run_state_machine_as_test(
        lambda: Histories(new_store()), settings=settings(max_examples=50, stateful_step_count=60, deadline=None)
    )


@pytest.mark.parametrize("options", [{}, {"max_jobs": 20}])
async def test_counts_and_bounds_hold_over_parts(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.setattr(admission, "PART", 2)
    storage = MemoryStorage(**options)
    jobs = [Job("work") for _ in range(20)]

    assert [await storage.enqueue(job) for job in reversed(jobs)] == [True] * 20
    assert await storage.enqueue_many(jobs) == 0

    claimed = await storage.fetch_available_jobs_atomic("worker", 20)
    assert [job.id for job in claimed] == [job.id for job in jobs]
    assert [job.id for job in await storage.list()] == [job.id for job in reversed(jobs)]
