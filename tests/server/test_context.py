"""What a task knows of its job: `job_context()`, in async tasks, their children, and plain functions in threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from math import inf
from time import sleep
from typing import Any

import pytest

from qml_nb import InvalidValue, Job, JobContext, JobState, OutsideJob, RetryPolicy, job_context
from qml_nb.server.threads import LET_END, Interrupted
from tests.server.waiting import LONG, ended, run, until


def test_outside_a_job_there_is_none() -> None:
    with pytest.raises(LookupError, match="no job runs here") as refusal:
        job_context()
    assert isinstance(refusal.value, OutsideJob)


async def test_it_is_that_of_the_job_wherever_its_code_runs(storage, registry, serve) -> None:
    @registry.task
    def plain() -> str:
        return job_context().job.id

    @registry.task
    async def nested() -> list[str]:
        async def child() -> str:
            await asyncio.sleep(0)
            return job_context().job.id

        first = job_context().job.id
        await asyncio.sleep(0.001)
        return [first, *await asyncio.gather(child(), child(), asyncio.to_thread(plain))]

    await serve(worker_count=20)
    jobs = await run(storage, *(Job(method) for method in ("plain", "nested") for _ in range(20)))
    for job in jobs:
        assert set(job.result if job.method == "nested" else [job.result]) == {job.id}


async def test_the_server_itself_and_threads_of_others_run_no_job(storage, registry, serve) -> None:
    @registry.task
    def elsewhere() -> str:
        with ThreadPoolExecutor(1) as pool:
            return type(pool.submit(job_context).exception()).__name__

    await serve()
    [job] = await run(storage, Job("elsewhere"))
    assert job.result == "OutsideJob"
    with pytest.raises(OutsideJob):
        job_context()


async def test_it_says_what_runs_and_how_often_it_ran(storage, registry, serve) -> None:
    seen: list[tuple[JobState, int, bool]] = []

    @registry.task
    async def twice(number: int) -> None:
        ctx = job_context()
        seen.append((ctx.job.state, ctx.attempt, ctx.is_retry))
        assert (ctx.job.method, ctx.job.args, ctx.job.queue) == ("twice", [7], "default")
        assert repr(ctx) == f"JobContext({ctx.job!r})"
        if ctx.attempt == 1:
            raise KeyError

    await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("twice", [7], max_retries=1))
    assert job.state is JobState.SUCCEEDED
    assert seen == [(JobState.PROCESSING, 1, False), (JobState.PROCESSING, 2, True)]


@pytest.mark.parametrize("timeout", [50.0, None])
async def test_it_says_how_long_the_job_may_run(storage, registry, serve, timeout) -> None:
    left: list[Any] = []

    @registry.task
    async def ask() -> None:
        ctx = job_context()
        left.extend((ctx.seconds_left, ctx.deadline))

    await serve(job_timeout=timeout)
    began = datetime.now(UTC)
    await run(storage, Job("ask"))
    seconds, deadline = left
    if timeout is None:
        assert (seconds, deadline) == (inf, None)
    else:
        assert 0 < seconds <= 50
        assert (began.timestamp() + 50) <= deadline.timestamp() <= datetime.now(UTC).timestamp() + 50
        assert deadline.tzinfo is UTC


async def test_records_of_its_logger_say_which_job_it_was(storage, registry, serve, caplog) -> None:
    @registry.task
    async def talk() -> None:
        job_context().logger.warning("%s things", 2, extra={"colour": "red"})

    await serve()
    caplog.set_level(logging.INFO, "qml_nb.jobs")
    [job] = await run(storage, Job("talk", queue="default"))
    [record] = [record for record in caplog.records if record.name == "qml_nb.jobs"]
    said = {name: vars(record)[name] for name in ("job_id", "method", "queue", "attempt", "colour")}
    assert said == {"job_id": job.id, "method": "talk", "queue": "default", "attempt": 1, "colour": "red"}
    assert record.getMessage() == "2 things"


# -- the job should end


async def test_an_async_task_learns_why_it_was_cancelled(storage, registry, serve) -> None:
    told: list[tuple[bool, str | None]] = []

    @registry.task
    async def hold() -> None:
        ctx = job_context()
        told.append((ctx.cancelled, ctx.cancel_reason))
        try:
            await asyncio.Event().wait()
        finally:
            told.append((ctx.cancelled, ctx.cancel_reason))
            assert ctx.seconds_left == 0

    server = await serve(worker_count=1)
    await run(storage, Job("hold", timeout=0.05))
    assert told == [(False, None), (True, "timeout")]
    await storage.enqueue(Job("hold"))
    await until(lambda: len(told) == 3)
    await server.stop()
    assert told[3] == (True, "stop")


@pytest.mark.parametrize("how", ["looks", "waits"])
@pytest.mark.parametrize("why", ["timeout", "stop"])
async def test_a_plain_function_that_looks_may_return_by_itself(storage, registry, serve, how, why) -> None:
    ends: list[str] = []
    started = threading.Event()

    @registry.task
    def step_by_step() -> str:
        ctx = job_context()
        assert not ctx.wait_cancelled(0)
        started.set()
        if how == "waits":
            assert ctx.wait_cancelled(LONG)
        while not ctx.cancelled:
            sleep(0.001)
        for _ in range(10):
            sleep(0.001)  # it tidies up
        ends.append(ctx.cancel_reason or "")
        return "is not counted"

    server = await serve(worker_count=1)
    job = Job("step_by_step", timeout=0.1 if why == "timeout" else None)
    await storage.enqueue(job)
    await until(started.is_set)
    if why == "stop":
        await server.stop()
        job = await storage.get(job.id)
        assert (job.state, job.attempt) == (JobState.ENQUEUED, 0)
    else:
        [job] = await ended(storage, job)
        assert "JobTimeout" in job.error
    assert ends == [why]


async def test_a_plain_function_that_looks_and_goes_on_all_the_same_is_interrupted(storage, registry, serve) -> None:
    ends: list[type[BaseException]] = []

    @registry.task
    def stubborn() -> None:
        try:
            while job_context().wait_cancelled(0) in (True, False):
                sleep(0.001)
        except BaseException as error:
            ends.append(type(error))
            raise

    assert LET_END < 1
    await serve(worker_count=1)
    [job] = await run(storage, Job("stubborn", timeout=0.05))
    assert "JobTimeout" in job.error
    await until(lambda: ends)
    assert ends == [Interrupted]


async def test_many_threads_of_one_job_may_wait(storage, registry, serve) -> None:
    woken: list[bool] = []
    barrier = threading.Barrier(9)

    @registry.task
    async def together() -> None:
        ctx = job_context()

        def wait() -> None:
            barrier.wait(LONG)
            woken.append(ctx.wait_cancelled(LONG))

        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(barrier.wait, LONG)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(lambda: [thread.join() for thread in threads])

    await serve()
    await run(storage, Job("together", timeout=0.05))
    assert woken == [True] * 8


async def test_a_context_that_outlives_its_job_still_answers(storage, registry, serve) -> None:
    kept: list[JobContext] = []

    @registry.task
    async def leak() -> None:
        kept.append(job_context())

    await serve()
    [job] = await run(storage, Job("leak"))
    [ctx] = kept
    assert (ctx.job.id, ctx.cancelled, ctx.cancel_reason) == (job.id, False, None)
    ctx.progress(1)
    assert (await storage.get(job.id)).progress is None


@pytest.mark.parametrize(
    "said",
    [
        {"done": float("nan")},
        {"done": "3"},
        {"done": 10**400},
        {"done": True},
        {"done": 1, "total": inf},
        {"done": 1, "message": 5},
    ],
)
async def test_progress_that_says_nothing_is_refused(storage, registry, serve, said) -> None:
    registry.register("tell", lambda: job_context().progress(**said))
    await serve()
    [job] = await run(storage, Job("tell"))
    assert job.state is JobState.FAILED
    assert job.error.startswith(f"{InvalidValue.__module__}.InvalidValue: expected ")
