"""How far jobs are: told at any rate, written now and then, and the last word always before the outcome."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from qml_nb import Job, JobState, RetryPolicy, job_context
from qml_nb.server import server as server_module
from tests.server.faults import Faulty
from tests.server.waiting import LONG, ended, run, until


@pytest.fixture
def reports(storage) -> list[list[Any]]:
    """The reports as they come to the backend, call by call."""
    calls: list[list[Any]] = []
    report = storage.backend.report

    async def note(reports):
        calls.append(list(reports))
        return await report(reports)

    storage.backend.report = note
    return calls


async def told(storage, job: Job, done: float) -> Any:
    """Return the progress of the job once it is that far."""
    async with asyncio.timeout(LONG):
        while not (progress := (await storage.get(job.id)).progress) or progress["done"] != done:
            await asyncio.sleep(0.002)
    return progress


@pytest.mark.parametrize("how", ["async", "plain"])
async def test_what_a_job_tells_can_be_read_while_it_runs(storage, registry, serve, how) -> None:
    go = threading.Event()

    async def work() -> None:
        job_context().progress(3, 10, "third of ten")
        while not go.is_set():
            await asyncio.sleep(0.001)

    def plain_work() -> None:
        job_context().progress(3, 10, "third of ten")
        go.wait(LONG)

    registry.register("work", work if how == "async" else plain_work)
    await serve(progress_interval=60)
    await storage.enqueue(job := Job("work"))
    assert await told(storage, job, 3) == {"done": 3, "total": 10, "message": "third of ten"}
    assert (await storage.get(job.id)).state is JobState.PROCESSING
    go.set()
    [job] = await ended(storage, job)
    assert job.progress == {"done": 3, "total": 10, "message": "third of ten"}


@pytest.mark.parametrize("how", ["async", "plain"])
async def test_the_last_word_is_written_before_the_outcome(storage, registry, serve, reports, how) -> None:
    async def count() -> None:
        for number in range(1_000):
            job_context().progress(number, 999)

    def plain_count() -> None:
        for number in range(1_000):
            job_context().progress(number, 999)

    registry.register("count", count if how == "async" else plain_count)
    await serve(worker_count=4, progress_interval=3600)
    jobs = await run(storage, *(Job("count") for _ in range(50)))
    assert [(job.state, job.progress["done"]) for job in jobs] == [(JobState.SUCCEEDED, 999)] * 50
    assert sum(map(len, reports)) <= 2 * 50


async def test_also_when_the_job_fails_and_when_it_goes_back(storage, registry, serve) -> None:
    @registry.task
    async def fail() -> None:
        job_context().progress(1)
        raise KeyError

    @registry.task
    async def hold() -> None:
        job_context().progress(2)
        await asyncio.Event().wait()

    server = await serve(progress_interval=3600, shutdown_timeout=0)
    [failed] = await run(storage, Job("fail"))
    assert (failed.state, failed.progress["done"]) == (JobState.FAILED, 1)
    await storage.enqueue(held := Job("hold"))
    await until(lambda: server.snapshot().busy)
    await server.stop()
    held = await storage.get(held.id)
    assert (held.state, held.progress["done"]) == (JobState.ENQUEUED, 2)


async def test_progress_begins_anew_with_each_run(storage, registry, serve) -> None:
    @registry.task
    async def twice() -> Any:
        before = job_context().job.progress
        if not job_context().is_retry:
            job_context().progress(1)
            raise KeyError
        return before

    await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("twice", max_retries=1))
    assert (job.state, job.result, job.progress) == (JobState.SUCCEEDED, None, None)


async def test_many_jobs_are_written_together_and_no_more_often_than_the_interval_says(
    storage, registry, serve, reports
) -> None:
    telling = 0

    @registry.task
    async def tell() -> None:
        nonlocal telling
        telling += 1
        while telling:
            job_context().progress(telling)
            await asyncio.sleep(0.001)

    server = await serve(worker_count=100, progress_interval=0.2)
    await storage.enqueue_many([Job("tell") for _ in range(100)])
    await until(lambda: telling == 100)
    loop = asyncio.get_running_loop()
    await until(lambda: reports)
    began, before = loop.time(), len(reports)
    await until(lambda: len(reports) > before + 2)
    took = loop.time() - began
    assert len(reports) - before <= took / 0.2 + 1
    assert max(map(len, reports)) == 100
    for batch in reports:
        assert len({report.claim_id for report in batch}) == len(batch)
    telling = 0
    await server.drained(timeout=LONG)


async def test_jobs_that_end_do_not_hurry_the_others(storage, registry, serve, reports) -> None:
    go = asyncio.Event()

    @registry.task
    async def tell() -> None:
        while not go.is_set():
            job_context().progress(1)
            await asyncio.sleep(0.001)

    @registry.task
    async def brief() -> None:
        job_context().progress(2)

    server = await serve(worker_count=2, progress_interval=3600)
    await storage.enqueue(Job("tell"))
    await until(lambda: reports)
    for _ in range(20):
        await run(storage, Job("brief"))
    [long_one] = {report.claim_id for report in reports[0]}
    assert sum(report.claim_id == long_one for batch in reports for report in batch) == 1
    go.set()
    await server.drained(timeout=LONG)


async def test_a_job_that_tells_nothing_costs_no_report(storage, registry, serve, reports) -> None:
    registry.register("note", lambda: None)
    await serve(progress_interval=0)
    await run(storage, *(Job("note") for _ in range(50)))
    assert reports == []


async def test_while_the_storage_is_away_nothing_is_lost(storage, registry, serve, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "_RETRY_FIRST", 0.01)

    @registry.task
    async def tell() -> None:
        job_context().progress(5)

    faults = Faulty(storage)
    faults.fail["report"] = 10**9
    await serve(progress_interval=0.01)
    await storage.enqueue(job := Job("tell"))
    await until(lambda: faults.calls["report"] > 3)
    assert (await storage.get(job.id)).state is JobState.PROCESSING
    faults.fail["report"] = 0
    [job] = await ended(storage, job)
    assert job.progress["done"] == 5


async def test_a_report_under_way_comes_before_the_outcome(storage, registry, serve) -> None:
    faults = Faulty(storage)
    faults.hold("report")
    go = asyncio.Event()

    @registry.task
    async def tell() -> None:
        job_context().progress(1)
        await go.wait()

    await serve()
    await storage.enqueue(job := Job("tell"))
    await until(lambda: faults.calls["report"])
    go.set()
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert faults.calls["settle"] == 0
    faults.release("report")
    [job] = await ended(storage, job)
    assert job.progress["done"] == 1


async def test_a_storage_that_can_not_keep_it_still_gets_the_outcome(storage, registry, serve, caplog) -> None:
    async def refuse(reports):
        raise ValueError("disk full")

    @registry.task
    async def tell() -> str:
        job_context().progress(1)
        return "done"

    storage.backend.report = refuse
    await serve()
    [job] = await run(storage, Job("tell"))
    assert job.result == "done"
    assert "the progress of 1 jobs could not be written" in caplog.text


async def test_the_thread_of_a_job_may_tell_when_its_server_is_gone(storage, registry, serve) -> None:
    started, release, ends = threading.Event(), threading.Event(), []

    @registry.task
    def block() -> None:
        ctx = job_context()
        started.set()
        try:
            release.wait()
        finally:
            ctx.progress(1)
            ends.append(True)

    server = await serve(shutdown_timeout=0.05)
    await storage.enqueue(Job("block"))
    await until(started.is_set)
    await server.stop()
    release.set()
    await until(lambda: ends)


async def test_it_is_heard_of_as_it_happens(storage, registry, serve) -> None:
    step = asyncio.Event()

    @registry.task
    async def walk() -> str:
        for number in range(1, 4):
            job_context().progress(number, 3)
            await step.wait()
            step.clear()
        return "there"

    await serve(progress_interval=0)
    await storage.enqueue(job := Job("walk"))
    seen = []
    async for snapshot in storage.follow(job.id):
        seen.append(snapshot.progress and snapshot.progress["done"])
        if snapshot.progress and not snapshot.state.is_final:
            step.set()
    assert seen[-4:] == [1, 2, 3, 3]
    assert await storage.result(job.id) == "there"
