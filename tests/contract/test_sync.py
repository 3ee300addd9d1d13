"""`storage.sync` is the same face without `await`, whether or not a loop runs here."""

import asyncio
import inspect
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from qml_nb.errors import InvalidJob, JobNotFound, StorageClosed
from qml_nb.job import Job
from qml_nb.states import JobState
from qml_nb.storage import sync as module
from qml_nb.storage.storage import Storage
from qml_nb.storage.sync import SyncStorage, run_sync


@pytest.fixture
def storage(connect: Any) -> Iterator[Storage]:
    """A storage that was opened on the toolkit's own loop, as code without `await` opens one."""
    storage: Storage = run_sync(connect())
    yield storage
    run_sync(storage.close())


@pytest.fixture
def sync(storage: Storage) -> SyncStorage:
    """Its face without `await`."""
    return storage.sync


def test_a_script_enqueues_claims_and_completes(sync: SyncStorage) -> None:
    job = Job("add", [1, 2])

    assert sync.enqueue(job) is True
    claimed = sync.fetch_and_lock_job("worker", ["default"], lease=5.0)
    assert sync.complete(claimed, 3) is True

    assert sync.get(job.id).result == 3
    assert sync.get_job_counts()[JobState.SUCCEEDED] == 1


async def test_it_works_while_a_loop_runs_in_this_thread(sync: SyncStorage) -> None:
    assert sync.enqueue_many([Job("work"), Job("work")]) == 2
    assert len(sync.list()) == 2


def test_it_works_from_many_threads_at_once(sync: SyncStorage) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: sync.enqueue(Job("work")), range(200)))

    assert answers == [True] * 200
    assert sync.get_job_counts()[JobState.ENQUEUED] == 200


def test_errors_reach_the_caller(sync: SyncStorage) -> None:
    with pytest.raises(InvalidJob, match="expected job to be a Job"):
        sync.enqueue("work")
    with pytest.raises(JobNotFound):
        sync.update(Job("work"))


def test_a_wait_ends_when_another_thread_brings_work(sync: SyncStorage) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sync.wait, None, 30.0)
        sync.enqueue(Job("work"))

        assert waiting.result(10) is True


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """As at a terminal: a shell starts what runs in the background deaf to it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_reaches_the_caller_at_once_and_cancels_the_work() -> None:
    ended = Event()

    async def work() -> None:
        try:
            await asyncio.sleep(0.05)  # the caller surely waits for the answer by then
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_sync(work())

    assert ended.wait(10)


def test_a_call_from_the_toolkits_own_loop_is_refused(sync: SyncStorage) -> None:
    async def wrong() -> None:
        sync.enqueue(Job("work"))

    with pytest.raises(RuntimeError, match="runs on the toolkit's own loop; await the method"):
        run_sync(wrong())

    assert sync.list() == []


def test_every_coroutine_method_of_the_storage_is_there_and_no_other(storage: Storage) -> None:
    methods = {name for name, _ in inspect.getmembers(Storage, inspect.iscoroutinefunction) if name[0] != "_"}
    methods.remove("subscribe")

    assert set(dir(storage.sync)) == methods
    with pytest.raises(AttributeError, match=r"storage\.sync has no 'subscribe'; it has cancel, "):
        storage.sync.subscribe("news")
    with pytest.raises(AttributeError):
        storage.sync.no_such_method()


def test_a_method_keeps_its_name_and_its_help(storage: Storage) -> None:
    for name in ("enqueue", "drained"):
        assert getattr(storage.sync, name).__name__ == name
        assert getattr(storage.sync, name).__doc__ == getattr(type(storage), name).__doc__


def test_a_closed_storage_says_so(sync: SyncStorage) -> None:
    sync.close()

    with pytest.raises(StorageClosed):
        sync.enqueue(Job("work"))


def test_all_calls_of_a_process_share_one_loop(sync: SyncStorage) -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert run_sync(loop()) is run_sync(loop()) is module.loop_of_the_toolkit()
