"""A pool whose servers run on a Dask cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from time import sleep

import pytest
from distributed import Client, LocalCluster

from qml_nb import InvalidValue, Job, JobState, MemoryStorage, RemoteError, ServerDied, WorkerPool
from qml_nb.server.telemetry import Snapshot
from tests.server.away.pools import pids, pools, results, servers_of, wait
from tests.server.waiting import LONG


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster of two processes."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def make(storage, registry, cluster) -> Iterator:
    """Makes pools, and stops them after the test."""
    registry.register("pid", os.getpid)
    with pools(storage, registry, where="dask", client=cluster.scheduler_address) as make:
        yield make


def test_servers_run_on_its_workers_and_go_when_the_pool_stops(storage, registry, make) -> None:
    secret = "from a cell"
    heard: list[Snapshot] = []

    @registry.task
    async def work(number: int) -> list:
        await asyncio.sleep(0.05)
        return [os.getpid(), secret, number]

    pool = make(servers=2)
    pool.listeners.append(heard.append)
    assert pool.start().state == "starting"
    wait(lambda: pool.state == "running")
    assert len(servers_of(storage)) == 2
    found = results(storage, *(Job("work", [number]) for number in range(12)))
    assert [result[1:] for result in found] == [["from a cell", number] for number in range(12)]
    assert {result[0] for result in found} == servers_of(storage)
    assert pool.error is None
    assert pool.stop() is pool
    assert pool.join(LONG)
    assert (pool.state, pool.error) == ("stopped", None)
    assert storage.sync.list_servers() == []
    last = {snapshot.server_id: snapshot for snapshot in heard}
    assert [snapshot.slots for snapshot in last.values()] == [0, 0]
    assert sum(snapshot.succeeded for snapshot in last.values()) == 12


def test_slots_servers_and_tasks_change_while_it_runs(storage, registry, make, tmp_path) -> None:
    @registry.task
    def hold(path: str) -> None:
        while not os.path.exists(path):
            sleep(0.01)

    def busy() -> int:
        return storage.sync.get_job_counts()[JobState.PROCESSING]

    pool = make(worker_count=1, shutdown_timeout=LONG).start()
    storage.sync.enqueue_many([Job("hold", [str(tmp_path / "go")]) for _ in range(12)])
    wait(lambda: busy() == 1)
    pool.resize(3)
    wait(lambda: busy() == 3)
    pool.resize(servers=2)
    wait(lambda: busy() == 6)
    (tmp_path / "go").touch()
    pool.resize(servers=1)
    wait(lambda: len(servers_of(storage)) == 1)
    assert pids(storage) == servers_of(storage)
    registry.register("pid", lambda: -1)
    wait(lambda: pids(storage) == {-1})


async def test_it_takes_a_client_that_is_asynchronous(storage, make, cluster) -> None:
    async with Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
        pool = make(client=client).start()
        await asyncio.to_thread(wait, lambda: pool.state == "running")
        assert await asyncio.to_thread(pids, storage) == await asyncio.to_thread(servers_of, storage)
        assert await client.submit(lambda number: number + 1, 1) == 2
        pool.stop()
        assert await asyncio.to_thread(pool.join, LONG)


def test_it_takes_a_client_that_is_not_and_leaves_it_its_own(storage, make, cluster) -> None:
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        pool = make(client=client).start()
        assert pids(storage) == servers_of(storage)
        assert client.submit(lambda number: number + 1, 1).result() == 2
        pool.stop().join(LONG)
        assert client.submit(lambda number: number + 2, 1).result() == 3


def test_the_server_of_a_lost_worker_starts_elsewhere(storage, registry, make) -> None:
    registry.register("die", lambda: os.kill(os.getpid(), signal.SIGKILL))
    heard: dict[str, int] = {}
    pool = make(servers=2, server_name="mortal")
    pool.listeners.append(lambda snapshot: heard.update({snapshot.server_id: snapshot.slots}))
    pool.start()
    wait(lambda: len(heard) == 2)
    first = servers_of(storage)
    storage.sync.enqueue(Job("die", max_retries=9))
    wait(lambda: pool.error)
    assert isinstance(pool.error, ServerDied)
    assert str(pool.error).startswith("a server of 'mortal' was lost: ")
    assert pool.state == "running"
    wait(lambda: sorted(heard.values()) == [0, 2, 2])
    assert len(pids(storage) & first) == 1


def test_on_postgres_it_works(local, registry, cluster) -> None:
    registry.register("pid", os.getpid)
    with pools(local.postgres(), registry, where="dask", client=cluster.scheduler_address, servers=2) as make:
        pool = make().start()
        assert pids(pool.storage) <= servers_of(pool.storage)
        pool.stop().join(LONG)
        assert pool.storage.sync.list_servers() == []


def test_what_can_not_start_makes_it_fail_and_say_why(storage, registry, make) -> None:
    class Unreadable:
        def __reduce__(self):
            return exec, ("import no_such_module",)

    broken = Unreadable()
    registry.register("broken", lambda: broken)
    pool = make().start()
    assert pool.join(LONG)
    assert (pool.state, type(pool.error)) == ("failed", RemoteError)
    assert str(pool.error).startswith("ModuleNotFoundError: No module named 'no_such_module'")


def test_without_a_scheduler_it_says_so_and_fails(storage, make, monkeypatch) -> None:
    monkeypatch.setattr("qml_nb.server.dask_place._CONNECT", 0.2)
    pool = make(client="tcp://127.0.0.1:1").start()
    wait(lambda: pool.error)
    assert "tcp://127.0.0.1:1" in str(pool.error)
    assert pool.join(LONG)
    assert pool.state == "failed"


def test_what_can_not_be_is_refused(storage, registry, monkeypatch) -> None:
    with pytest.raises(InvalidValue, match=r"expected client to be a distributed.Client with where='dask', got None"):
        WorkerPool(storage, registry, where="dask")
    with pytest.raises(InvalidValue, match="each process would have a memory of its own"):
        WorkerPool(MemoryStorage(), registry, where="dask", client="tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "qml_nb.server.dask_place", raising=False)
    with pytest.raises(InvalidValue, match=r"where to have the package distributed, got 'dask'; pip .*qml-nb\[dask\]"):
        WorkerPool(storage, registry, where="dask", client="tcp://127.0.0.1:1")


async def test_a_client_that_is_not_connected_is_refused(make, cluster) -> None:
    client = Client(cluster.scheduler_address, asynchronous=True, set_as_default=False)
    with pytest.raises(InvalidValue, match="expected client to be connected"):
        make(client=client).start()
    await client
    await client.close()
    with pytest.raises(InvalidValue, match="expected client to be connected"):
        make(client=client).start()


KERNEL = """
import sys, time
from qml_nb import WorkerPool, WorkerRegistry
from qml_nb.server import dask_place
url, prefix, scheduler, silence = sys.argv[1:]
dask_place.SILENCE = float(silence)
registry = WorkerRegistry()

pool = WorkerPool(url, registry, where="dask", client=scheduler, storage_options={"key_prefix": prefix}).start()
time.sleep(3600)
"""


@pytest.mark.parametrize(("how", "silence"), [(signal.SIGKILL, 3600.0), (signal.SIGSTOP, 1.0)])
def test_when_its_kernel_is_gone_or_silent_the_servers_stop(storage, cluster, how, silence) -> None:
    url, prefix = storage.backend.config.url, storage.backend.config.key_prefix
    command = [sys.executable, "-c", KERNEL, url, prefix, cluster.scheduler_address, str(silence)]
    kernel = subprocess.Popen(command)
    try:
        wait(lambda: servers_of(storage))
        kernel.send_signal(how)
        wait(lambda: not servers_of(storage))
        if how == signal.SIGSTOP:
            kernel.send_signal(signal.SIGCONT)
            wait(lambda: servers_of(storage))
    finally:
        kernel.kill()
        kernel.wait()
