"""A job says how often it is tried again, the policy of its task or of the server says when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from qml_nb import Job, JobState, Retry, RetryPolicy
from tests.server.waiting import in_state, run, until


class Flaky(Exception):
    pass


class VeryFlaky(Flaky):
    pass


def failing(times: int, error: type[Exception] = Flaky):
    """A task that fails that many times, then returns how often it ran."""
    runs = 0

    async def task() -> int:
        nonlocal runs
        runs += 1
        if runs <= times:
            raise error(f"run {runs}")
        return runs

    return task


@pytest.mark.parametrize(
    ("times", "max_retries", "state", "attempt"),
    [
        (1, 0, JobState.FAILED, 1),
        (1, 1, JobState.SUCCEEDED, 2),
        (5, 2, JobState.FAILED, 3),
        (4, 4, JobState.SUCCEEDED, 5),
    ],
)
async def test_a_job_is_tried_again_as_often_as_it_says(
    storage, registry, serve, times, max_retries, state, attempt
) -> None:
    registry.register("flaky", failing(times))
    server = await serve(retry=RetryPolicy.fixed(0), scheduler_poll_interval=0.01)
    [job] = await run(storage, Job("flaky", max_retries=max_retries))
    assert (job.state, job.attempt) == (state, attempt)
    if state is JobState.FAILED:
        assert job.error.startswith(f"tests.server.test_retries.Flaky: run {attempt}")
    else:
        assert (job.result, job.error) == (attempt, None)
    await until(lambda: server.snapshot().finished == 1)
    assert server.snapshot().retried == attempt - 1


async def test_a_job_waits_for_as_long_as_the_policy_of_the_server_says(storage, registry, serve) -> None:
    registry.register("flaky", failing(1))
    await serve(retry=RetryPolicy.fixed(3600))
    job = Job("flaky", max_retries=1)
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert 3590 < job.run_ts - job.started_ts < 3620
    assert job.error.startswith("tests.server.test_retries.Flaky: run 1\n")
    assert job.worker_id is None


async def test_the_policy_of_a_task_goes_before_that_of_the_server(storage, registry, serve) -> None:
    registry.register("flaky", failing(1), retry=RetryPolicy.fixed(7200))
    await serve(retry=RetryPolicy.fixed(0))
    job = Job("flaky", max_retries=1)
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert 7190 < job.run_ts - job.started_ts < 7220


@pytest.mark.parametrize("of_task", [RetryPolicy.fixed(0), None])
async def test_the_policy_of_a_job_goes_before_all(storage, registry, serve, of_task) -> None:
    registry.register("flaky", failing(1), retry=of_task)
    await serve(retry=RetryPolicy.fixed(0))
    job = Job("flaky", max_retries=1, retry=RetryPolicy.fixed(9000))
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert 8990 < job.run_ts - job.started_ts < 9020


async def test_a_job_whose_policy_is_none_is_not_tried_again(storage, registry, serve) -> None:
    registry.register("flaky", failing(1), retry=RetryPolicy.fixed(0))
    await serve()
    [job] = await run(storage, Job("flaky", max_retries=5, retry=RetryPolicy.none()))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)


async def test_the_delay_grows_with_the_attempts(storage, registry, serve) -> None:
    registry.register("flaky", failing(9))
    await serve(retry=RetryPolicy.exponential(1000, 2, jitter=0, cap=100_000), scheduler_poll_interval=1000)
    job = Job("flaky", max_retries=9)
    await storage.enqueue(job)
    delays = []
    for _ in range(3):
        waiting = await in_state(storage, job, JobState.AWAITING_RETRY)
        delays.append(waiting.run_ts - waiting.started_ts)
        await storage.sweep(now=waiting.run_at + timedelta(seconds=1))
        await until(lambda: storage.totals.settled == len(delays) + 1)
    assert [round(delay, -2) for delay in delays] == [1000, 2000, 4000]


async def test_without_a_policy_of_its_own_the_server_backs_off(storage, registry, serve) -> None:
    registry.register("flaky", failing(1))
    await serve()
    job = Job("flaky", max_retries=1)
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert 0.5 < job.run_ts - job.started_ts < 5


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy.none(),
        RetryPolicy.fixed(0, give_up_on=("Flaky",)),
        RetryPolicy.fixed(0, give_up_on=(f"{__name__}.Flaky",)),
    ],
    ids=["none", "by name", "by full name"],
)
@pytest.mark.parametrize("of", ["task", "server"])
async def test_an_error_that_is_given_up_on_is_not_tried_again(storage, registry, serve, policy, of) -> None:
    registry.register("flaky", failing(1, VeryFlaky), retry=policy if of == "task" else None)
    await serve(retry=RetryPolicy.fixed(0) if of == "task" else policy)
    [job] = await run(storage, Job("flaky", max_retries=5))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)


@pytest.mark.parametrize("of", ["job", "task", "server"])
@pytest.mark.parametrize(("error", "attempt"), [(VeryFlaky, 2), (Flaky, 2), (KeyError, 1)])
async def test_only_errors_that_are_worth_it_are_tried_again(storage, registry, serve, of, error, attempt) -> None:
    policy = RetryPolicy.fixed(0, retry_on=(Flaky,))
    registry.register("flaky", failing(1, error), retry=policy if of == "task" else None)
    await serve(retry=policy if of == "server" else RetryPolicy.fixed(0))
    [job] = await run(storage, Job("flaky", max_retries=5, retry=policy if of == "job" else None))
    assert job.attempt == attempt
    assert job.state is (JobState.SUCCEEDED if attempt == 2 else JobState.FAILED)


async def test_other_errors_are_tried_again_all_the_same(storage, registry, serve) -> None:
    registry.register("flaky", failing(1, VeryFlaky))
    await serve(retry=RetryPolicy.fixed(0, give_up_on=("LookupError",)))
    [job] = await run(storage, Job("flaky", max_retries=5))
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


async def test_a_requeued_job_has_all_its_attempts_again(storage, registry, serve) -> None:
    registry.register("flaky", failing(3))
    await serve(retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("flaky", max_retries=1))
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
    await storage.requeue(job.id)
    job = await in_state(storage, job, JobState.SUCCEEDED)
    assert (job.attempt, job.result) == (2, 4)


# -- a task asks for it


@pytest.mark.parametrize("how", ["async", "plain"])
async def test_a_task_may_say_when_it_wants_to_run_again(storage, registry, serve, how) -> None:
    async def ask() -> None:
        raise Retry(5000)

    def plain_ask() -> None:
        raise Retry(delay=5000.0)

    registry.register("ask", ask if how == "async" else plain_ask, retry=RetryPolicy.fixed(0, give_up_on=("Retry",)))
    await serve()
    job = Job("ask", max_retries=1)
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert 4990 < job.run_ts - job.started_ts < 5020
    assert job.error.startswith("qml_nb.errors.Retry: asks to run again in 5000 s")


async def test_without_a_delay_it_waits_as_its_policy_says(storage, registry, serve) -> None:
    @registry.task(retry=RetryPolicy.fixed(6000, retry_on=(OSError,)))
    async def ask() -> None:
        try:
            raise Flaky("busy")
        except Flaky as error:
            raise Retry from error

    await serve()
    job = Job("ask", max_retries=1)
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.AWAITING_RETRY)
    assert 5990 < job.run_ts - job.started_ts < 6020
    assert "Flaky: busy" in job.error


async def test_it_can_not_ask_more_often_than_max_retries_says(storage, registry, serve) -> None:
    @registry.task
    async def ask() -> None:
        raise Retry(0)

    server = await serve()
    never, twice = await run(storage, Job("ask"), Job("ask", max_retries=2))
    assert [(job.state, job.attempt) for job in (never, twice)] == [(JobState.FAILED, 1), (JobState.FAILED, 3)]
    await until(lambda: server.snapshot().finished == 2)


class OwnPolicy(RetryPolicy):
    """A policy with a method of its own."""

    def delay(self, attempt, random=None):
        return {1: 0.0, 2: float("nan")}[attempt]


@pytest.mark.parametrize("first", [1, 2])
async def test_a_policy_that_gives_no_delay_costs_no_slot(storage, registry, serve, caplog, first) -> None:
    class Later(OwnPolicy):
        def delay(self, attempt, random=None):
            return super().delay(attempt + first)

    registry.register("fails", failing(5), retry=Later())
    registry.register("works", failing(0))
    server = await serve(worker_count=1)
    failed, after = await run(storage, Job("fails", max_retries=3), Job("works"))
    assert failed.state is JobState.FAILED
    assert failed.error.startswith("tests.server.test_retries.Flaky")
    assert after.state is JobState.SUCCEEDED
    assert "the retry policy of fails failed" in caplog.text
    await until(lambda: server.snapshot().busy == 0)
