"""A job that is refused fails its own caller alone, though many calls share a round trip."""

from __future__ import annotations

import asyncio

import pytest

from qml_nb import Job, JobState
from qml_nb.errors import CapacityExceeded, InvalidJob
from tests.faults.conftest import Connect


async def test_those_that_fit_are_stored_and_the_others_are_told(connect: Connect, url: str) -> None:
    storage = connect(url, max_jobs=5)
    answers = await asyncio.gather(*(storage.enqueue(Job("work")) for _ in range(20)), return_exceptions=True)
    assert answers.count(True) == 5
    assert sum(isinstance(answer, CapacityExceeded) for answer in answers) == 15
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 5


async def test_a_batch_that_does_not_fit_fails_alone(connect: Connect, url: str) -> None:
    storage = connect(url, max_jobs=10)
    many = [Job("many") for _ in range(11)]
    calls = [storage.enqueue(Job("one")), storage.enqueue_many(many), *(storage.enqueue(Job("one")) for _ in range(9))]
    first, refused, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, CapacityExceeded)
    assert [first, *others] == [True] * 10
    assert await storage.list(method="many") == []


async def test_what_can_not_be_stored_is_no_job_at_all(connect: Connect, url: str) -> None:
    storage = connect(url)
    with pytest.raises(InvalidJob):
        Job("work", [object()])
    answers = await asyncio.gather(
        storage.enqueue(Job("work")), storage.enqueue("no job"), storage.enqueue(Job("work")), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [bool, InvalidJob, bool]
