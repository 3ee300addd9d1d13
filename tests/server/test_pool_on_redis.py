"""A pool on a real server that is away: it waits, says why, and works as soon as the server is there."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep

import pytest

from qml_nb import Job, JobState, RedisStorage, StorageUnavailable, WorkerPool
from qml_nb.load import synthetic_tasks
from tests.server.waiting import LONG


@pytest.fixture
def storage(server) -> Iterator[RedisStorage]:
    storage = RedisStorage(server.url, command_timeout=0.3)
    yield storage
    storage.sync.close()


def wait(true) -> None:
    end = monotonic() + LONG
    while not true():
        assert monotonic() < end
        sleep(0.005)


def test_a_pool_that_starts_before_its_server_waits_for_it(storage, server) -> None:
    server.kill()
    with WorkerPool(storage, synthetic_tasks(), worker_count=2, shutdown_timeout=1.0) as pool:
        wait(lambda: pool.error)
        assert isinstance(pool.error, StorageUnavailable)
        assert pool.is_running
        server.restart()
        wait(lambda: pool.state == "running")
        assert pool.error is None
        storage.sync.enqueue(job := Job("noop"))
        storage.sync.drained(timeout=LONG)
        assert storage.sync.get(job.id).state is JobState.SUCCEEDED


def test_a_pool_that_waits_for_its_server_can_be_stopped(storage, server) -> None:
    server.kill()
    pool = WorkerPool(storage, synthetic_tasks(), shutdown_timeout=1.0).start()
    wait(lambda: pool.error)
    began = monotonic()
    pool.stop()
    assert monotonic() - began < 0.1
    assert pool.join(LONG)
    assert (pool.state, pool.error) == ("stopped", None)


def test_a_pool_outlives_a_restart_of_its_server(storage, server) -> None:
    with WorkerPool(storage, synthetic_tasks(), worker_count=2, shutdown_timeout=1.0) as pool:
        wait(lambda: pool.state == "running")
        server.restart()
        jobs = [Job("noop") for _ in range(20)]
        wait(lambda: storage.sync.enqueue_many(jobs) == 20)
        storage.sync.drained(timeout=LONG)
        assert pool.state == "running"
