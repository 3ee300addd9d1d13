"""Nothing that a handler does takes a slot away from its server."""

from __future__ import annotations

import asyncio
import sys
import threading
from time import sleep

import pytest

from qml_nb import Job, JobState
from tests.server.waiting import full_house, run, until

SLOTS = 2
release = threading.Event()
"""Ends the handlers that nothing else ends."""


@pytest.fixture(autouse=True)
async def released():
    release.clear()
    yield
    release.set()


class Nothing(BaseException):
    pass


def raises(error: BaseException):
    def crash() -> None:
        raise error

    return crash


def recurse() -> None:
    recurse()


def end_thread() -> None:
    import _thread

    _thread.exit()


RAISED = {
    "Exception": raises(Exception("broken")),
    "BaseException": raises(Nothing("broken")),
    "SystemExit": raises(SystemExit(1)),
    "KeyboardInterrupt": raises(KeyboardInterrupt()),
    "GeneratorExit": raises(GeneratorExit()),
    "StopIteration": raises(StopIteration(5)),
    "StopAsyncIteration": raises(StopAsyncIteration()),
    "CancelledError": raises(asyncio.CancelledError()),
    "TimeoutError": raises(TimeoutError()),
    "RecursionError": recurse,
    "sys.exit": lambda: sys.exit("bye"),
    "thread.exit": end_thread,
}


def as_async(function):
    async def crash() -> None:
        function()

    return crash


def as_async_later(function):
    async def crash() -> None:
        await asyncio.sleep(0)
        function()

    return crash


@pytest.mark.parametrize("wrap", [as_async, as_async_later, lambda function: function], ids=["async", "later", "plain"])
@pytest.mark.parametrize("crash", RAISED.values(), ids=RAISED)
async def test_whatever_a_handler_raises_only_its_job_fails(storage, registry, serve, crash, wrap) -> None:
    registry.register("crash", wrap(crash))
    server = await serve(worker_count=SLOTS)
    jobs = await run(storage, *(Job("crash") for _ in range(SLOTS + 1)))
    assert {job.state for job in jobs} == {JobState.FAILED}
    assert all(job.error for job in jobs)
    await full_house(server, SLOTS)


async def cancel_oneself() -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def cancel_oneself_and_return() -> None:
    asyncio.current_task().cancel()


async def cancel_every_task() -> None:
    """Cancel oneself, and other jobs; not the server's own tasks, whose names don't tell, nor the test's."""
    for task in asyncio.all_tasks():
        if task.get_coro().__qualname__ == "Slots._run":
            task.cancel()
    await asyncio.sleep(0)


async def spin() -> None:
    while True:
        pass


async def spin_later() -> None:
    await asyncio.sleep(0)
    while True:
        pass


async def turn() -> None:
    while True:
        await asyncio.sleep(0)


async def ignore_cancellation() -> None:
    while not release.is_set():
        try:
            await asyncio.sleep(0.01)
        except BaseException:
            pass


async def block_the_loop() -> None:
    sleep(1.5)


def spin_in_a_thread() -> None:
    while True:
        pass


def wait_in_a_thread() -> None:
    release.wait()


def sleep_in_a_thread() -> None:
    sleep(0.5)


def ignore_interruption() -> None:
    while not release.is_set():
        try:
            sleep(0.01)
        except BaseException:
            pass


HANGING = [
    spin,
    spin_later,
    turn,
    ignore_cancellation,
    block_the_loop,
    spin_in_a_thread,
    wait_in_a_thread,
    sleep_in_a_thread,
    ignore_interruption,
]


@pytest.mark.parametrize("hang", HANGING)
async def test_however_a_handler_hangs_its_slot_comes_back(storage, registry, serve, hang) -> None:
    registry.register("hang", hang)
    server = await serve(worker_count=SLOTS, job_timeout=0.1)
    jobs = await run(storage, *(Job("hang") for _ in range(SLOTS)))
    assert {job.state for job in jobs} == {JobState.FAILED}
    assert all("JobTimeout" in job.error for job in jobs)
    server.registry.register("hang", print)
    await run(storage, Job("hang"))
    await full_house(server, SLOTS)
    release.set()
    await until(lambda: not any(task.get_coro().__qualname__ == "Slots._run" for task in asyncio.all_tasks()))


@pytest.mark.parametrize("cancel", [cancel_oneself, cancel_oneself_and_return, cancel_every_task])
async def test_a_handler_that_cancels_its_task_ends_its_job(storage, registry, serve, cancel) -> None:
    registry.register("cancel", cancel)
    server = await serve(worker_count=SLOTS)
    await run(storage, *(Job("cancel") for _ in range(SLOTS + 1)))
    await full_house(server, SLOTS)


async def close_the_executor() -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


async def replace_the_exception_handler() -> None:
    def handler(_loop, _context) -> None:
        raise ValueError("worse")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    loop.set_exception_handler(None)


async def leave_a_failed_task() -> None:
    async def child() -> None:
        raise ValueError("nobody looks")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    asyncio.create_task(child())  # noqa: RUF006  on purpose
    await asyncio.sleep(0)


async def set_a_task_factory() -> None:
    def factory(_loop, coro, **_):
        coro.close()
        raise RuntimeError("no more tasks")

    asyncio.get_running_loop().set_task_factory(factory)


@pytest.mark.parametrize(
    "meddle", [close_the_executor, leave_a_failed_task, set_a_task_factory, replace_the_exception_handler]
)
async def test_a_handler_that_meddles_with_the_loop_harms_no_other_job(storage, registry, serve, meddle) -> None:
    loop = asyncio.get_running_loop()
    registry.register("meddle", meddle)
    registry.register("plain", threading.get_ident)
    server = await serve(worker_count=SLOTS)
    await run(storage, *(Job("meddle") for _ in range(SLOTS + 1)))
    [job] = await run(storage, Job("plain"))
    assert job.state is JobState.SUCCEEDED
    await full_house(server, SLOTS)
    loop.set_task_factory(None)
    loop.set_exception_handler(None)


class Odd:
    def __repr__(self) -> str:
        raise SystemExit(1)

    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __hash__ = None

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")


class OddError(Exception):
    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __hash__ = None

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


RESULTS = {
    "object": Odd,
    "list of objects": lambda: [Odd()] * 1000,
    "itself": lambda: (circle := []).append(circle) or circle,
    "deep": lambda: nested(100_000),
    "huge int": lambda: 10**10_000,
    "class": lambda: Odd,
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
async def test_an_odd_result_only_fails_its_job(storage, registry, serve, make) -> None:
    registry.register("odd", as_async(make))
    registry.register("odd", make)
    server = await serve(worker_count=SLOTS)
    jobs = await run(storage, *(Job("odd") for _ in range(SLOTS + 1)))
    assert {job.state for job in jobs} == {JobState.FAILED}
    assert all(job.error for job in jobs)
    await full_house(server, SLOTS)


async def test_a_huge_result_is_stored_whole(storage, registry, serve) -> None:
    registry.register("huge", lambda: ["x" * 1000] * 10_000)
    server = await serve(worker_count=SLOTS)
    [job] = await run(storage, Job("huge"))
    assert job.result == ["x" * 1000] * 10_000
    await full_house(server, SLOTS)


async def test_an_odd_error_only_fails_its_job(storage, registry, serve) -> None:
    registry.register("odd", raises(OddError("odd")))
    server = await serve(worker_count=SLOTS)
    jobs = await run(storage, *(Job("odd") for _ in range(SLOTS + 1)))
    assert {job.state for job in jobs} == {JobState.FAILED}
    await full_house(server, SLOTS)
