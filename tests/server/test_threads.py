"""Threads for plain functions, one by one."""

from __future__ import annotations

import asyncio
import threading
from time import sleep

import pytest

from qml_nb.server.threads import Interrupted, Threads
from tests.server.waiting import no_threads_left, until


@pytest.fixture
async def threads():
    threads = Threads("test")
    yield threads
    threads.close()
    await no_threads_left()


def call(threads: Threads, function, *args, **kwargs):
    return threads.run(asyncio.get_running_loop(), function, *args, **kwargs)


async def test_it_returns_what_the_function_returns_and_raises_what_it_raises(threads) -> None:
    assert await call(threads, divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        await call(threads, divmod, 7, 0)
    with pytest.raises(SystemExit):
        await call(threads, exit, 3)


async def test_a_call_that_was_cancelled_interrupts_its_function(threads) -> None:
    raised: list[BaseException] = []
    started = threading.Event()

    def spin() -> None:
        started.set()
        try:
            while True:
                sleep(0.001)
        except BaseException as error:
            raised.append(error)
            raise

    task = asyncio.create_task(call(threads, spin))
    await until(started.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(error) for error in raised] == [Interrupted]


async def test_it_ends_when_the_function_has_let_go_and_not_before(threads) -> None:
    release, started = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait()

    task = asyncio.create_task(call(threads, block))
    await until(started.is_set)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0.005)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_second_cancellation_leaves_the_function_to_itself(threads) -> None:
    release, started = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait()

    task = asyncio.create_task(call(threads, block))
    await until(started.is_set)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await call(threads, lambda: "others go on") == "others go on"
    release.set()


async def test_an_interrupted_thread_is_replaced(threads) -> None:
    idents = []
    for _ in range(3):
        task = asyncio.create_task(call(threads, sleep, 0.02))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        idents.append(await call(threads, threading.get_ident))
    assert len(idents) == 3


async def test_cancellations_at_any_moment_leave_no_thread_behind(threads) -> None:
    """The function is about as quick as the cancellation, so that the two meet in every way."""
    for turn in range(300):
        task = asyncio.create_task(call(threads, sleep, 0.0001 * (turn % 4)))
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        if turn % 2:
            await asyncio.sleep(0.0001 * (turn % 3))
        task.cancel()
        try:
            await asyncio.wait_for(task, 20)
        except asyncio.CancelledError:
            pass
    assert await call(threads, lambda: "alive") == "alive"
