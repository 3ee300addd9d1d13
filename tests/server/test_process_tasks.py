"""Tasks that are registered with `process=True` run in processes of their own, which are killed when they are given up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from time import sleep

import cloudpickle
import pytest

from qml_nb import Job, JobState, OutsideJob, Retry, RetryPolicy, job_context
from qml_nb.server.processes import Processes
from qml_nb.servers.reaper import birth
from tests.server.away.pools import processes, wait
from tests.server.waiting import LONG, ended, full_house, in_state, run, until


@pytest.fixture(autouse=True, scope="module")
def as_in_a_notebook() -> Iterator[None]:
    """Functions of this module travel whole, as those of a notebook's cells do."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Every process of a test is gone when its servers are."""
    yield
    wait(lambda: not processes())


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A file into which processes write lines."""
    path = tmp_path / "notes.txt"
    path.touch()
    return path


def lines_of(notes: Path) -> list[str]:
    """Return the whole lines that are there."""
    return [line for line in notes.read_text().splitlines(keepends=True) if line.endswith("\n")]


async def noted(notes: Path, lines: int = 1) -> list[str]:
    """Return what processes wrote, once it is so many lines."""
    await until(lambda: len(lines_of(notes)) >= lines)
    return lines_of(notes)


async def test_it_runs_in_another_process_which_is_kept_for_the_next_call(storage, registry, serve) -> None:
    @registry.task(process=True)
    def work(number: int, *, text: str) -> list:
        return [os.getpid(), number, {"text": text}, 2**53 + 1, None]

    await serve(process_count=1)
    jobs = await run(storage, *(Job("work", [number], {"text": "ü😀"}) for number in range(3)))
    results = [job.result for job in jobs]
    assert [result[1:] for result in results] == [[number, {"text": "ü😀"}, 2**53 + 1, None] for number in range(3)]
    assert len({result[0] for result in results} - {os.getpid()}) == 1


async def test_a_task_that_returns_nothing_succeeds(storage, registry, serve) -> None:
    registry.register("work", lambda: None, process=True)
    await serve(process_count=1)
    [job] = await run(storage, Job("work"))
    assert (job.state, job.result, job.error) == (JobState.SUCCEEDED, None, None)


async def test_there_are_as_many_processes_as_calls_at_a_time_and_no_more_than_may_be(storage, registry, serve) -> None:
    registry.register("work", lambda: [os.getpid(), sleep(0.05)], process=True)
    await serve(worker_count=6, process_count=2)
    jobs = await run(storage, *(Job("work") for _ in range(6)))
    assert len({job.result[0] for job in jobs}) == 2
    assert len(processes()) == 2


async def test_async_tasks_go_on_while_processes_are_busy(storage, registry, serve, notes) -> None:
    def work(path: str) -> None:
        with open(path, "a") as file:
            print("begun", file=file)
        while True:
            pass

    registry.register("work", work, process=True)

    @registry.task
    async def turn() -> None:
        await asyncio.sleep(0)

    await serve(process_count=1)
    await storage.enqueue(Job("work", [str(notes)]))
    await noted(notes)
    await run(storage, *(Job("turn") for _ in range(10)))


# -- calls that are given up


def endless(path: str) -> None:
    """Note one's process and another one that it starts, and run for ever."""
    import subprocess
    import sys

    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    with open(path, "a") as file:
        print(os.getpid(), other.pid, file=file)
    while True:
        pass


@pytest.fixture
def spin(registry) -> None:
    """A task that never ends by itself, and starts a process of its own."""
    registry.register("spin", endless, process=True)


async def gone(line: str) -> None:
    """Return once the processes of a line are no more."""
    pids = [int(word) for word in line.split()]
    assert len(pids) == 2
    await until(lambda: not any(birth(pid) for pid in pids))


async def test_beyond_its_timeout_its_process_is_killed_and_replaced(storage, registry, serve, spin, notes) -> None:
    registry.register("pid", os.getpid, process=True)
    server = await serve(process_count=1)
    await storage.enqueue(job := Job("spin", [str(notes)], timeout=1.0))
    [line] = await noted(notes)
    [job] = await ended(storage, job)
    assert (job.state, job.error.split("\n")[0]) == (
        JobState.FAILED,
        f"qml_nb.errors.JobTimeout: job '{job.id}' ran longer than its timeout of 1 s",
    )
    await gone(line)
    [after] = await run(storage, Job("pid"))
    assert str(after.result) not in line.split()
    await full_house(server, 2)


async def test_when_it_is_cancelled_its_process_is_killed(storage, serve, spin, notes) -> None:
    await serve(process_count=1)
    await storage.enqueue(job := Job("spin", [str(notes)]))
    [line] = await noted(notes)
    await storage.cancel(job.id)
    await gone(line)


async def test_when_its_lease_is_lost_its_process_is_killed(storage, serve, spin, notes) -> None:
    await serve(process_count=1, lease=0.3)
    await storage.enqueue(job := Job("spin", [str(notes)]))
    [line] = await noted(notes)
    await storage.backend.move([job.id], JobState.DELETED, [JobState.PROCESSING])
    await gone(line)


async def test_when_its_server_stops_its_process_is_killed_and_the_job_handed_back(storage, serve, spin, notes) -> None:
    server = await serve(process_count=1, shutdown_timeout=0.05)
    await storage.enqueue(job := Job("spin", [str(notes)]))
    [line] = await noted(notes)
    await server.stop()
    assert not any(birth(int(pid)) for pid in line.split()[:1])
    await gone(line)
    job = await storage.get(job.id)
    assert (job.state, job.attempt) == (JobState.ENQUEUED, 0)


async def test_a_call_that_waits_for_a_free_process_has_its_own_deadline_and_never_runs(
    storage, registry, serve, spin, notes
) -> None:
    await serve(process_count=1)
    await storage.enqueue(first := Job("spin", [str(notes)], timeout=5))
    await noted(notes)
    [second] = await run(storage, Job("spin", [str(notes)], timeout=0.2))
    assert "JobTimeout" in second.error
    assert (await storage.get(first.id)).state is JobState.PROCESSING
    await storage.cancel(first.id)
    assert len(await noted(notes)) == 1


# -- processes that end by themselves


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_child_behind() -> None:
    """End, though a forked process still holds what this one held."""
    if not os.fork():
        sleep(5)
    os._exit(4)


@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda: os._exit(3), "ended with status 3"),
        (kill_oneself, "was killed by signal 9"),
        (segfault, "was killed by signal 11"),
        (leave_a_child_behind, "ended with status 4"),
    ],
)
async def test_when_its_process_dies_the_job_fails_by_the_usual_rules(storage, registry, serve, die, how) -> None:
    registry.register("die", die, process=True)
    registry.register("live", lambda: "lives", process=True)
    await serve(process_count=1, retry=RetryPolicy.fixed(0))
    job, other = await run(storage, Job("die", max_retries=1), Job("live"))
    assert (job.state, job.attempt, other.result) == (JobState.FAILED, 2, "lives")
    assert job.error.startswith(f"qml_nb.errors.ProcessDied: the process that ran 'die' {how} before it answered")


async def test_a_process_that_died_between_two_calls_is_replaced(storage, registry, serve) -> None:
    registry.register("pid", os.getpid, process=True)
    await serve(process_count=1)
    [first] = await run(storage, Job("pid"))
    os.kill(first.result, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, first.result, os.WEXITED | os.WNOWAIT)
    [second] = await run(storage, Job("pid"))
    assert second.state is JobState.SUCCEEDED
    assert second.result != first.result


async def test_the_errors_of_processes_can_be_retried_by_name(storage, registry, serve) -> None:
    registry.register("die", lambda: os._exit(3), process=True)
    await serve(process_count=1, retry=RetryPolicy.fixed(0, give_up_on=["ProcessDied"]))
    [job] = await run(storage, Job("die", max_retries=3))
    assert job.attempt == 1


# -- what tasks raise and return


def fail() -> None:
    raise KeyError("broken")


def fail_for_a_reason() -> None:
    try:
        fail()
    except KeyError as error:
        raise ValueError("worse") from error


@pytest.mark.parametrize("function", [fail, fail_for_a_reason, lambda: sys.exit(3), lambda: 1 / 0])
async def test_what_it_raises_is_stored_as_if_it_were_raised_here(storage, registry, serve, function) -> None:
    registry.register("here", function)
    registry.register("there", function, process=True)
    await serve(process_count=1)
    here, there = await run(storage, Job("here"), Job("there"))
    assert (here.state, there.state) == (JobState.FAILED, JobState.FAILED)
    assert there.error.partition("\n\n")[2].startswith("Traceback (most recent call last):\n  File")
    assert "qml_nb" not in there.error
    first, own = here.error.partition("\n\n")[0], here.error.splitlines()[-3:]
    assert there.error.partition("\n\n")[0] == first
    assert there.error.splitlines()[-3:] == own


class BrokenError(LookupError):
    """An error of a task's own."""


@pytest.mark.parametrize("given_up", [KeyError, LookupError, "KeyError", "builtins.LookupError"])
async def test_policies_know_what_it_raises_by_its_class_and_their_bases(storage, registry, serve, given_up) -> None:
    registry.register("fail", fail, process=True, retry=RetryPolicy.fixed(0, give_up_on=[given_up]))
    registry.register("other", fail, process=True, retry=RetryPolicy.fixed(0, give_up_on=[ValueError]))
    await serve(process_count=1)
    job, other = await run(storage, Job("fail", max_retries=2), Job("other", max_retries=2))
    assert (job.attempt, other.attempt) == (1, 3)


async def test_it_can_ask_to_be_run_again(storage, registry, serve) -> None:
    @registry.task(process=True, retry=RetryPolicy.none())
    def work() -> int:
        if job_context().attempt == 1:
            raise Retry(delay=0.01)
        return job_context().attempt

    await serve(process_count=1)
    [job] = await run(storage, Job("work", max_retries=1))
    assert (job.state, job.result) == (JobState.SUCCEEDED, 2)
    [job] = await run(storage, Job("work"))
    assert (job.state, job.error.partition("\n")[0]) == (
        JobState.FAILED,
        "qml_nb.errors.Retry: asks to run again in 0.01 s",
    )


async def test_a_result_that_is_no_json_fails_the_job_and_it_does_not_run_again(storage, registry, serve) -> None:
    registry.register("work", lambda: {1, 2}, process=True)
    await serve(process_count=1, retry=RetryPolicy.fixed(0))
    [job] = await run(storage, Job("work", max_retries=3))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error.startswith("qml_nb.errors.InvalidValue: expected result to be plain JSON data")


async def test_a_process_outlives_whatever_its_task_raises(storage, registry, serve) -> None:
    registry.register("pid", os.getpid, process=True)
    registry.register("fail", fail, process=True)
    registry.register("exit", lambda: sys.exit(3), process=True)
    await serve(worker_count=1, process_count=1)
    first, *_, last = await run(storage, *map(Job, ("pid", "fail", "exit", "pid")))
    assert first.result == last.result


# -- functions


async def test_a_task_that_is_registered_anew_runs_from_the_next_call_on(storage, registry, serve) -> None:
    registry.register("work", lambda: "old", process=True)
    await serve(process_count=1)
    before, _ = await run(storage, Job("work"), Job("work"))
    registry.register("work", lambda: "new", process=True)
    after, _ = await run(storage, Job("work"), Job("work"))
    assert (before.result, after.result) == ("old", "new")


async def test_a_module_that_was_loaded_anew_is_loaded_anew_there_too(
    storage, registry, serve, tmp_path, monkeypatch
) -> None:
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "reloaded.py"
    path.write_text("def work(): return 'old'")
    module = importlib.import_module("reloaded")
    registry.register("work", module.work, process=True)
    await serve(process_count=1)
    [before] = await run(storage, Job("work"))
    path.write_text("def work(): return 'newer'")
    importlib.invalidate_caches()
    registry.register("work", importlib.reload(module).work, process=True)
    [after] = await run(storage, Job("work"))
    assert (before.result, after.result) == ("old", "newer")


async def test_a_task_that_no_other_process_can_get_fails_and_is_named(storage, registry, serve) -> None:
    lock = Lock()
    registry.register("locked", lambda: lock.locked(), process=True)
    await serve(process_count=1)
    [job] = await run(storage, Job("locked"))
    assert job.state is JobState.FAILED
    assert "expected task 'locked' to be something that another process can get a copy of" in job.error
    assert "it may use no locks" in job.error


async def test_a_task_that_can_not_be_read_there_fails_each_time_and_says_why(
    storage, registry, serve, tmp_path, monkeypatch
) -> None:
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vanishing.py").write_text("def work(): pass")
    registry.register("work", importlib.import_module("vanishing").work, process=True)
    (tmp_path / "vanishing.py").unlink()
    await serve(process_count=1)
    for job in await run(storage, Job("work"), Job("work")):
        assert job.error.startswith("ModuleNotFoundError: No module named 'vanishing'")


async def test_where_nothing_asks_for_a_process_none_is_started(storage, registry, serve) -> None:
    registry.register("idle", lambda: None, process=True)
    registry.register("busy", lambda: None)
    await serve()
    await run(storage, Job("busy"))
    assert not processes()


# -- the context of the job


async def test_it_knows_the_job_that_it_runs(storage, registry, serve) -> None:
    @registry.task(process=True)
    def work() -> list:
        ctx = job_context()
        return [ctx.job.id, ctx.job.queue, ctx.attempt, ctx.is_retry, 0 < ctx.seconds_left <= 30, ctx.cancelled]

    await serve(process_count=1)
    [job] = await run(storage, Job("work", timeout=30))
    assert job.result == [job.id, "default", 1, False, True, False]


async def test_what_it_tells_can_be_read_while_it_runs_and_the_last_word_after_it(
    storage, registry, serve, notes
) -> None:
    @registry.task(process=True)
    def work(path: str) -> None:
        for done in range(100):
            job_context().progress(done, 100)
        with open(path, "w") as file:
            print("told", file=file)
        while os.path.getsize(path):
            sleep(0.01)
        job_context().progress(100, 100, "done")

    await serve(process_count=1, progress_interval=0.01)
    await storage.enqueue(job := Job("work", [str(notes)]))
    await noted(notes)
    async with asyncio.timeout(LONG):
        while (await storage.get(job.id)).progress != {"done": 99, "total": 100, "message": ""}:
            await asyncio.sleep(0.01)
    assert (await in_state(storage, job, JobState.PROCESSING)).attempt == 1
    notes.write_text("")
    [job] = await ended(storage, job)
    assert job.progress == {"done": 100, "total": 100, "message": "done"}


async def test_what_it_prints_and_logs_goes_where_the_server_prints(storage, registry, serve, capfd) -> None:
    @registry.task(process=True)
    def work() -> None:
        print("printed")
        job_context().logger.warning("logged")

    await serve(process_count=1)
    await run(storage, Job("work"))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("printed\n", "logged\n")


async def test_middleware_is_around_it_in_the_server(storage, registry, serve) -> None:
    registry.register("work", lambda: os.getpid(), process=True)

    @registry.middleware
    async def both(_job, _ctx, task):
        return [os.getpid(), await task()]

    await serve(process_count=1)
    [job] = await run(storage, Job("work"))
    assert job.result[0] == os.getpid() != job.result[1]


# -- what processes are like


async def test_they_are_out_of_reach_of_ctrl_c_and_of_the_input(storage, registry, serve) -> None:
    registry.register("work", lambda: [os.getsid(0) == os.getpid(), sys.stdin.read()], process=True)
    await serve(process_count=1)
    [job] = await run(storage, Job("work"))
    assert job.result == [True, ""]


async def test_what_a_job_sets_in_its_context_the_next_does_not_see(storage, registry, serve) -> None:
    import decimal

    @registry.task(process=True)
    def work() -> int:
        before = decimal.getcontext().prec
        decimal.getcontext().prec = 5
        decimal.setcontext(decimal.Context(prec=6))
        return before

    await serve(process_count=1)
    first, second = await run(storage, Job("work"), Job("work"))
    assert (first.result, second.result) == (decimal.DefaultContext.prec, decimal.DefaultContext.prec)


async def test_none_means_one_process_for_each_processor(storage, registry, serve, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    registry.register("work", lambda: [os.getpid(), sleep(0.05)], process=True)
    await serve(worker_count=6)
    jobs = await run(storage, *(Job("work") for _ in range(12)))
    assert len({job.result[0] for job in jobs}) == 3


async def test_calls_that_are_cancelled_at_any_moment_leave_no_process_behind(registry) -> None:
    """Cancelled while it waits for a process, while that starts, while it runs, and just as it answers."""
    from qml_nb.server.run import Run

    registry.register("nap", lambda: sleep(0.002), process=True)
    task = registry.find("nap")
    processes = Processes(2, None)
    for turn in range(40):
        job = Job("nap")
        calls = [asyncio.create_task(processes.run(Run(job, 0, 0, 1e30), task)) for _ in range(3)]
        await asyncio.sleep(0.001 * (turn % 7))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert await processes.run(Run(Job("nap"), 0, 0, 1e30), task) is None
    await processes.close()


async def test_outside_of_jobs_a_process_has_no_context(storage, registry, serve) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask() -> str:
        try:
            return str(job_context())
        except OutsideJob:
            return "outside"

    @registry.task(process=True)
    def work() -> str:
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(ask).result()

    await serve(process_count=1)
    [job] = await run(storage, Job("work"))
    assert job.result == "outside"


async def test_one_that_forks_and_lets_both_return_answers_once(storage, registry, serve, notes) -> None:
    @registry.task(process=True)
    def forks(path: str) -> str:
        if os.fork() == 0:
            with open(path, "a") as file:
                file.write("child\n")
            job_context().progress(1)
            return "child"
        while not os.path.getsize(path):
            sleep(0.01)
        os.wait()  # it ends, and waits for no call
        return "parent"

    @registry.task(process=True)
    def echo(number: int) -> int:
        return number

    await serve(process_count=1, worker_count=1)
    first, *others = await run(storage, Job("forks", [str(notes)]), *(Job("echo", [number]) for number in range(5)))
    assert (first.result, first.progress) == ("parent", None)
    assert [other.result for other in others] == [0, 1, 2, 3, 4]
