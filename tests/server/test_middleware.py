"""What runs around every task."""

from __future__ import annotations

import asyncio
from typing import Any

import cloudpickle
import pytest

from qml_nb import InvalidValue, Job, JobState, NextUsedTwice, RetryPolicy, WorkerRegistry, job_context
from tests.server.waiting import run


def echo(registry: WorkerRegistry) -> None:
    """Register a task that returns what it is given: async, and as a plain function."""

    @registry.task("echo")
    async def echo(value: Any = None, *, fail: bool = False) -> Any:
        await asyncio.sleep(0)
        if fail:
            raise KeyError(value)
        return value

    registry.register("plain_echo", lambda value=None: value)


@pytest.mark.parametrize("method", ["echo", "plain_echo"])
async def test_the_first_registered_is_the_outermost(storage, registry, serve, method) -> None:
    steps: list[str] = []
    echo(registry)
    for name in ("first", "second", "third"):

        @registry.middleware
        async def around(job, ctx, call_next, name=name):
            steps.append(f"{name} in")
            result = await call_next()
            steps.append(f"{name} out")
            return [name, result]

    await serve()
    [job] = await run(storage, Job(method, ["x"]))
    assert job.result == ["first", ["second", ["third", "x"]]]
    assert steps == ["first in", "second in", "third in", "third out", "second out", "first out"]


async def test_it_gets_the_job_and_its_context(storage, registry, serve) -> None:
    seen: list[Any] = []
    echo(registry)

    @registry.middleware
    async def look(job, ctx, call_next):
        seen.extend((job.id, job.state, ctx.job is job, ctx.attempt, job_context().job is job, ctx.cancelled))
        return await call_next()

    await serve()
    [job] = await run(storage, Job("echo", ["x"], {"fail": False}))
    assert job.result == "x"
    assert seen == [job.id, JobState.PROCESSING, True, 1, True, False]


async def test_it_may_answer_in_place_of_the_task(storage, registry, serve) -> None:
    ran: list[int] = []
    registry.register("note", ran.append)

    @registry.middleware
    async def cached(job, ctx, call_next):
        return "from the cache" if job.args == [1] else await call_next()

    await serve()
    first, second = await run(storage, Job("note", [1]), Job("note", [2]))
    assert (first.result, second.result, ran) == ("from the cache", None, [2])


async def test_it_may_catch_the_error_of_a_task_and_raise_its_own(storage, registry, serve) -> None:
    echo(registry)

    @registry.middleware
    async def translate(job, ctx, call_next):
        try:
            return await call_next()
        except KeyError as error:
            if job.args == ["mild"]:
                return "caught"
            raise OSError("translated") from error

    await serve()
    mild, hard = await run(storage, Job("echo", ["mild"], {"fail": True}), Job("echo", ["hard"], {"fail": True}))
    assert (mild.state, mild.result) == (JobState.SUCCEEDED, "caught")
    assert hard.state is JobState.FAILED
    assert hard.error.startswith("OSError: translated")


async def test_its_errors_are_tried_again_like_those_of_the_task(storage, registry, serve) -> None:
    echo(registry)

    @registry.middleware
    async def shaky(job, ctx, call_next):
        if not ctx.is_retry:
            raise ConnectionError("not yet")
        return await call_next()

    await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("echo", ["x"], max_retries=1))
    assert (job.state, job.attempt, job.result) == (JobState.SUCCEEDED, 2, "x")


async def test_the_task_runs_once_however_often_next_is_called(storage, registry, serve) -> None:
    ran: list[str] = []
    registry.register("note", ran.append)
    errors: list[BaseException] = []

    @registry.middleware
    async def again(job, ctx, call_next):
        await call_next()
        with pytest.raises(RuntimeError, match="called before") as refusal:
            call_next()
        errors.append(refusal.value)
        return "once"

    await serve()
    [job] = await run(storage, Job("note", ["x"]))
    assert (job.result, ran) == ("once", ["x"])
    assert [type(error) for error in errors] == [NextUsedTwice]


async def test_it_sees_that_a_job_is_cancelled(storage, registry, serve) -> None:
    seen: list[str | None] = []
    registry.register("never", asyncio.Event().wait)

    @registry.middleware
    async def watch(job, ctx, call_next):
        try:
            return await call_next()
        except asyncio.CancelledError:
            seen.append(ctx.cancel_reason)
            raise

    await serve()
    [job] = await run(storage, Job("never", timeout=0.05))
    assert "JobTimeout" in job.error
    assert seen == ["timeout"]


async def test_a_result_that_is_no_json_fails_the_job(storage, registry, serve) -> None:
    echo(registry)

    @registry.middleware
    async def spoil(job, ctx, call_next):
        await call_next()
        return {1, 2}

    await serve()
    [job] = await run(storage, Job("echo", max_retries=3))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "expected result to be plain JSON data" in job.error


async def test_one_that_comes_while_servers_run_counts_from_the_next_job_on(storage, registry, serve) -> None:
    echo(registry)
    await serve()
    [before] = await run(storage, Job("echo", ["x"]))

    @registry.middleware
    async def late(job, ctx, call_next):
        return [await call_next()]

    [after] = await run(storage, Job("echo", ["x"]))
    assert (before.result, after.result) == ("x", ["x"])


async def test_an_object_whose_call_is_async_will_do(storage, registry, serve) -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        async def __call__(self, job, ctx, call_next):
            self.calls += 1
            return await call_next()

    echo(registry)
    counting = registry.middleware(Counting())
    await serve()
    await run(storage, Job("echo"), Job("echo"))
    assert counting.calls == 2


@pytest.mark.parametrize("middleware", [lambda job, ctx, call_next: call_next(), print, 5, None])
def test_one_that_is_not_async_is_refused(registry, middleware) -> None:
    with pytest.raises(InvalidValue, match="expected middleware to be an async function"):
        registry.middleware(middleware)
    assert registry.chain == []


CELL = """
async def outer(job, ctx, call_next): return {version}, await call_next()
async def inner(job, ctx, call_next): return await call_next()
def hook(job, old, new): return {version}
"""


def test_one_defined_anew_takes_the_place_of_the_one_before(registry) -> None:
    for version in (1, 2, 3):
        cell: dict[str, Any] = {"__name__": "__main__"}
        exec(CELL.format(version=version), cell)
        registry.middleware(cell["outer"])
        registry.middleware(cell["inner"])
        registry.on_state_change(cell["hook"])
    assert registry.chain == [cell["outer"], cell["inner"]]
    assert registry.hooks == [cell["hook"]]


def test_those_that_a_function_made_stand_side_by_side(registry) -> None:
    def limit(number: int):
        async def limited(job, ctx, call_next):
            return number

        return limited

    made = [registry.middleware(limit(number)) for number in range(3)]
    assert registry.chain == made


async def test_they_travel_with_the_registry(storage, registry, serve) -> None:
    echo(registry)

    @registry.middleware
    async def around(job, ctx, call_next):
        return [await call_next()]

    registry.on_state_change(lambda job, old, new: None)
    twin = cloudpickle.loads(cloudpickle.dumps(registry))
    assert (len(twin.chain), len(twin.hooks)) == (1, 1)
