"""A job that runs longer than it may is cancelled, alone; its slot is free again."""

from __future__ import annotations

import asyncio
import threading
from time import sleep

import pytest

from qml_nb import Job, JobState, RetryPolicy
from qml_nb.server.threads import Interrupted
from tests.server.waiting import full_house, run, until


async def _never() -> None:
    await asyncio.Event().wait()


async def test_the_timeout_of_a_job_counts(storage, registry, serve) -> None:
    registry.register("never", _never)
    server = await serve(job_timeout=None)
    [job] = await run(storage, Job("never", timeout=0.05))
    assert job.state is JobState.FAILED
    assert job.error.startswith(f"qml_nb.errors.JobTimeout: job {job.id!r} ran longer than its timeout of 0.05 s")
    await full_house(server, 2)


async def test_the_timeout_of_a_job_goes_before_that_of_the_server(storage, registry, serve) -> None:
    @registry.task
    async def nap() -> str:
        await asyncio.sleep(0.3)
        return "rested"

    await serve(job_timeout=0.05)
    longer, shorter = await run(storage, Job("nap", timeout=60), Job("nap"))
    assert longer.result == "rested"
    assert "its timeout of 0.05 s" in shorter.error


async def test_only_the_job_that_is_late_is_cancelled(storage, registry, serve) -> None:
    cancelled: list[str] = []
    go = asyncio.Event()

    @registry.task
    async def wait(name: str) -> None:
        try:
            await go.wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    await serve(worker_count=2)
    late, patient = Job("wait", ["late"], timeout=0.05), Job("wait", ["patient"])
    await storage.enqueue(patient)
    [late] = await run(storage, late)
    go.set()
    [patient] = await run(storage, patient)
    assert cancelled == ["late"]
    assert (late.state, patient.state) == (JobState.FAILED, JobState.SUCCEEDED)


async def test_a_timeout_is_an_error_like_any_other_for_retries(storage, registry, serve) -> None:
    runs = 0

    @registry.task
    async def slow_once() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            await _never()
        return runs

    await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("slow_once", timeout=0.05, max_retries=1))
    assert (job.state, job.result, job.attempt) == (JobState.SUCCEEDED, 2, 2)


async def test_a_plain_function_is_interrupted_at_its_next_step(storage, registry, serve) -> None:
    ends: list[type[BaseException]] = []

    @registry.task
    def spin() -> None:
        try:
            while True:
                sleep(0.001)
        except BaseException as error:
            ends.append(type(error))
            raise

    server = await serve()
    [job] = await run(storage, Job("spin", timeout=0.05))
    assert "JobTimeout" in job.error
    await until(lambda: ends)
    assert ends == [Interrupted]
    await full_house(server, 2)


async def test_a_plain_function_that_can_not_be_interrupted_keeps_its_thread_but_not_its_slot(
    storage, registry, serve
) -> None:
    release = threading.Event()
    registry.register("block", release.wait)
    server = await serve(worker_count=1)
    [job] = await run(storage, Job("block", timeout=0.05))
    assert "JobTimeout" in job.error
    await full_house(server, 1)
    release.set()


async def test_no_timeout_means_no_limit(storage, registry, serve) -> None:
    @registry.task
    async def nap() -> str:
        await asyncio.sleep(0.2)
        return "rested"

    await serve(job_timeout=None)
    [job] = await run(storage, Job("nap"))
    assert job.result == "rested"


@pytest.mark.parametrize("where", ["async", "plain"])
async def test_an_answer_that_comes_after_the_timeout_does_not_count(storage, registry, serve, where) -> None:
    release, done = threading.Event(), threading.Event()

    async def stubborn() -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        done.set()
        return "too late"

    def stubborn_plain() -> str:
        try:
            release.wait()
        except BaseException:
            pass
        done.set()
        return "too late"

    registry.register("stubborn", stubborn if where == "async" else stubborn_plain)
    server = await serve(worker_count=1)
    [job] = await run(storage, Job("stubborn", timeout=0.05))
    assert "JobTimeout" in job.error
    release.set()
    await until(done.is_set)
    await full_house(server, 1)
    assert (await storage.get(job.id)) == job
    assert server.snapshot().refused == 0
