"""A child process, and the pipe to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from qml_nb import InvalidValue, Job, JobState, WorkerPool
from qml_nb.server import lifeline
from qml_nb.server.lifeline import Child
from tests.server.waiting import LONG, run, until


@pytest.fixture
async def child() -> AsyncIterator[Child]:
    child = Child("tests.server.stubborn")
    yield child
    await child.end()
    child.pipe.close()


async def test_messages_of_any_size_go_through_the_pipe(child) -> None:
    message = os.urandom(5_000_000)
    reading = asyncio.create_task(child.pipe.read())
    await child.pipe.write(message)
    assert await asyncio.wait_for(reading, LONG) == 2 * message


async def test_a_busy_child_ends_when_its_parent_lets_go_of_the_pipe(child) -> None:
    await child.pipe.write(b"work")
    assert await child.pipe.read() == b"workwork"
    assert child.status is None
    child.pipe.close()
    await until(lambda: child.status is not None)
    assert child.status == 1


async def test_a_child_that_is_killed_ends_the_pipe(child) -> None:
    await child.pipe.write(b"work")
    assert await child.pipe.read() == b"workwork"
    child.kill()
    assert await child.pipe.read() is None
    assert await child.ended() == -9
    child.kill()
    with pytest.raises(ConnectionError):
        await child.pipe.write(b"more")


async def test_where_children_can_not_be_started_it_is_said(storage, registry, serve, monkeypatch) -> None:
    monkeypatch.setattr(lifeline, "CAN_SPAWN", False)
    with pytest.raises(InvalidValue, match="expected where to be something else on this system, got 'process'"):
        WorkerPool("redis://127.0.0.1:1", registry, where="process")
    registry.register("work", print, process=True)
    await serve()
    [job] = await run(storage, Job("work"))
    assert (job.state, job.error.partition(",")[0]) == (
        JobState.FAILED,
        "qml_nb.errors.InvalidValue: expected process to be something else on this system",
    )
