"""A job runs as a task of its own: async functions on the loop, plain ones in threads."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from functools import partial

import pytest

from qml_nb import Job, JobState, WorkerRegistry
from tests.server.waiting import ended, run, until

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def test_each_job_is_a_task_of_its_own(storage, registry, serve) -> None:
    tasks: list[asyncio.Task[None]] = []

    @registry.task
    async def note() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        assert asyncio.current_task() is tasks[-1]

    await serve(worker_count=1)
    jobs = await run(storage, *(Job("note") for _ in range(5)))
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 5
    assert len({id(task) for task in tasks}) == 5
    assert asyncio.current_task() not in tasks


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_context_variable_does_not_leak_into_the_next_job(storage, registry, serve, kind) -> None:
    seen: list[str] = []

    def touch(value: str) -> None:
        seen.append(variable.get())
        variable.set(value)

    async def touch_async(value: str) -> None:
        touch(value)

    registry.register("touch", touch if kind == "plain" else touch_async)
    await serve(worker_count=1)
    await run(storage, *(Job("touch", [str(number)]) for number in range(4)))
    assert seen == ["unset"] * 4
    assert variable.get() == "unset"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_job_sees_the_context_in_which_its_server_was_started(storage, registry, serve, kind) -> None:
    async def look() -> str:
        return variable.get()

    registry.register("look", look if kind == "async" else variable.get)
    token = variable.set("outside")
    await serve()
    variable.reset(token)
    [job] = await run(storage, Job("look"))
    assert job.result == "outside"


async def test_plain_functions_run_in_other_threads_at_the_same_time(storage, registry, serve) -> None:
    together = threading.Barrier(4)
    names: set[str] = set()

    @registry.task
    def meet() -> None:
        names.add(threading.current_thread().name)
        together.wait(20)

    await serve(worker_count=4, server_name="mailer")
    jobs = await run(storage, *(Job("meet") for _ in range(4)))
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert names == {"mailer thread"}


async def test_the_loop_turns_while_a_plain_function_runs(storage, registry, serve) -> None:
    release = threading.Event()

    @registry.task
    def block() -> bool:
        return release.wait(20)

    @registry.task
    async def free() -> None:
        release.set()

    await serve(worker_count=2)
    jobs = await run(storage, Job("block"), Job("free"))
    assert [job.result for job in jobs] == [True, None]


async def test_threads_are_used_again(storage, registry, serve) -> None:
    registry.register("where", threading.get_ident)
    await serve(worker_count=1)
    jobs = await run(storage, *(Job("where") for _ in range(10)))
    assert len({job.result for job in jobs}) == 1
    assert jobs[0].result != threading.get_ident()


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_arguments_arrive_and_results_are_stored(storage, registry, serve, kind) -> None:
    def join(*args: object, **kwargs: object) -> list[object]:
        return [*args, kwargs]

    async def join_async(*args: object, **kwargs: object) -> list[object]:
        return join(*args, **kwargs)

    registry.register("join", join if kind == "plain" else join_async)
    await serve()
    value = {"ü": [1.5, None, True, 2**53 + 1]}
    jobs = await run(
        storage, Job("join", [1, "b"], {"key": value}), Job("join", [[]]), Job("join", [], {"self": 1, "function": 2})
    )
    assert [job.result for job in jobs] == [[1, "b", {"key": value}], [[], {}], [{"self": 1, "function": 2}]]
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert all(job.error is None and job.attempt == 1 for job in jobs)


async def test_methods_partials_and_callable_objects_are_tasks_too(storage, registry, serve) -> None:
    class Adder:
        def __init__(self, base: int) -> None:
            self.base = base

        async def __call__(self, number: int) -> int:
            return self.base + number

        async def method(self, number: int) -> int:
            return self.base - number

    async def add(a: int, b: int) -> int:
        return a + b

    adder = Adder(10)
    registry.register("object", adder)
    registry.register("method", adder.method)
    registry.register("partial", partial(add, 5))
    registry.register("builtin", max)
    await serve()
    jobs = await run(storage, *(Job(name, [3]) for name in ("object", "method", "partial")), Job("builtin", [3, 4]))
    assert [job.result for job in jobs] == [13, 7, 8, 4]


async def test_wrong_arguments_fail_the_job_and_say_so(storage, registry, serve) -> None:
    @registry.task
    async def add(a: int, b: int) -> int:
        return a + b

    await serve()
    [job] = await run(storage, Job("add", [1, 2, 3]))
    assert job.state is JobState.FAILED
    assert job.error.startswith("TypeError: ")
    assert "add()" in job.error


async def test_a_job_enqueued_by_a_job_runs(storage, registry, serve) -> None:
    child = Job("leaf")

    @registry.task
    async def parent() -> None:
        await storage.enqueue(child)

    registry.register("leaf", lambda: "reached")
    await serve(worker_count=1)
    await run(storage, Job("parent"))
    [job] = await ended(storage, child)
    assert job.result == "reached"


async def test_a_function_registered_again_is_used_from_the_next_job_on(storage, registry, serve) -> None:
    registry.register("version", lambda: 1)
    await serve()
    [first] = await run(storage, Job("version"))
    registry.register("version", lambda: 2)
    [second] = await run(storage, Job("version"))
    assert (first.result, second.result) == (1, 2)


async def test_a_running_job_keeps_the_function_that_it_began_with(storage, registry, serve) -> None:
    go, running = asyncio.Event(), asyncio.Event()

    @registry.task
    async def version() -> int:
        running.set()
        await go.wait()
        return 1

    await serve()
    job = Job("version")
    await storage.enqueue(job)
    await running.wait()
    registry.register("version", lambda: 2)
    go.set()
    [job] = await ended(storage, job)
    assert job.result == 1


async def test_two_servers_share_a_registry(storage, registry: WorkerRegistry, serve) -> None:
    meet = asyncio.Barrier(4)
    registry.register("meet", meet.wait)
    first, second = await serve(worker_count=2, fetch_batch_size=1), await serve(worker_count=2, fetch_batch_size=1)
    await run(storage, *(Job("meet") for _ in range(4)))
    await until(lambda: first.snapshot().succeeded + second.snapshot().succeeded == 4)
    assert first.snapshot().succeeded == 2
