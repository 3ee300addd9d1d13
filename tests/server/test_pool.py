"""A pool runs servers in a thread of its own: whoever started it stays free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from time import monotonic, sleep

import pytest

from qml_nb import InvalidValue, Job, JobState, MemoryStorage, ServerConfig, StorageClosed, UnknownOption, WorkerPool
from qml_nb.errors import StorageError
from qml_nb.server.telemetry import Snapshot
from qml_nb.storage.backend import ServerInfo
from tests.server.waiting import LONG, threads


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Every thread of a pool ends with it."""
    yield
    wait(lambda: not threads())


def wait(true) -> None:
    """Return once the condition holds."""
    end = monotonic() + LONG
    while not true():
        assert monotonic() < end
        sleep(0.002)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def go(registry) -> Iterator[threading.Event]:
    """What ends the jobs that are called hold."""
    go = threading.Event()

    @registry.task
    async def hold() -> None:
        while not go.is_set():
            await asyncio.sleep(0.002)

    registry.register("note", lambda: "noted")
    yield go
    go.set()


@pytest.fixture
def make(storage, registry, go) -> Iterator:
    """Makes pools, and stops them after the test."""
    pools: list[WorkerPool] = []

    def make(**options) -> WorkerPool:
        pools.append(
            WorkerPool(
                storage, registry, **{"worker_count": 2, "fetch_batch_size": 1, "shutdown_timeout": 60} | options
            )
        )
        return pools[-1]

    yield make
    go.set()
    for pool in pools:
        assert pool.stop().join(LONG)


def busy(storage) -> int:
    return storage.sync.get_job_counts()[JobState.PROCESSING]


def slots(storage) -> list[int]:
    return [row.worker_count for row in storage.sync.list_servers()]


def works(pool: WorkerPool) -> bool:
    """Whether the pool runs a job, as many at a time as it has slots."""
    many = pool.servers * pool.worker_count
    together = threading.Barrier(many)
    pool.registry.register("meet", lambda: together.wait(LONG))
    jobs = [Job("meet") for _ in range(many)]
    pool.storage.sync.enqueue_many(jobs)
    pool.storage.sync.drained(timeout=LONG)
    return all(pool.storage.sync.get(job.id).state is JobState.SUCCEEDED for job in jobs)


def test_it_runs_jobs_in_a_thread_of_its_own(storage, registry, make) -> None:
    @registry.task
    async def where() -> list:
        return [threading.current_thread().name, threading.current_thread().daemon]

    make(server_name="mailer").start()
    storage.sync.enqueue(job := Job("where"))
    storage.sync.drained(timeout=LONG)
    assert storage.sync.get(job.id).result == ["mailer pool", True]


def test_start_and_stop_return_before_it_has_started_or_stopped(storage, make, go) -> None:
    pool = make().start()
    assert pool.state in ("starting", "running")
    storage.sync.enqueue_many([Job("hold"), Job("hold")])
    wait(lambda: busy(storage) == 2)
    assert pool.stop() is pool
    assert (pool.state, pool.is_running) == ("stopping", False)
    assert not pool.join(0)
    assert busy(storage) == 2
    go.set()
    assert pool.join(LONG)
    assert (pool.state, pool.error) == ("stopped", None)
    assert storage.sync.get_job_counts()[JobState.SUCCEEDED] == 2


async def test_it_starts_stops_and_resizes_inside_a_running_loop(storage, make, go) -> None:
    pool = make().start()
    await storage.enqueue_many([Job("hold") for _ in range(4)])
    pool.resize(4)
    async with asyncio.timeout(LONG):
        while (await storage.get_job_counts())[JobState.PROCESSING] < 4:
            await asyncio.sleep(0.002)
        pool.stop()
        go.set()
        while pool.state != "stopped":
            await asyncio.sleep(0.002)
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 4


@pytest.mark.parametrize("act", ["stop", "resize", "start", "join"])
def test_it_may_be_acted_on_from_its_own_listener(make, act) -> None:
    pool = make()
    acted: list[object] = []

    def listener(_snapshot: Snapshot) -> None:
        if not acted:
            acted.append(pool.resize(3, servers=2) if act == "resize" else getattr(pool, act)())

    pool.listeners.append(listener)
    pool.start()
    wait(lambda: acted)
    assert acted == [False if act == "join" else pool]
    if act == "stop":
        assert pool.join(LONG)
    else:
        assert works(pool)


def test_starting_twice_and_stopping_twice_do_nothing(storage, make) -> None:
    pool = make().start()
    assert pool.start() is pool
    wait(lambda: len(slots(storage)) == 1)
    assert works(pool)
    assert pool.stop().stop().join(LONG)
    assert pool.stop().join(0)
    assert make().stop().join(0)


def test_it_starts_again_as_soon_as_it_has_stopped(storage, make) -> None:
    pool = make()
    for _ in range(20):
        pool.start()
        wait(lambda: pool.state == "running")
        pool.stop()
        wait(lambda: pool.state == "stopped")
    pool.start()
    assert pool.is_running
    assert works(pool)
    assert len(storage.sync.list_servers()) == 1


def test_it_may_be_stopped_before_it_runs(make) -> None:
    for _ in range(20):
        pool = make().start().stop()
        assert pool.join(LONG)
        assert pool.state == "stopped"


def test_it_does_not_start_while_it_stops(storage, make, go) -> None:
    pool = make().start()
    storage.sync.enqueue(Job("hold"))
    wait(lambda: busy(storage) == 1)
    pool.stop()
    with pytest.raises(InvalidValue, match=r"expected pool to have stopped .* got 'stopping'; join\(\) it first"):
        pool.start()


def test_as_a_context_manager_it_waits_for_a_graceful_end(storage, registry, go) -> None:
    with WorkerPool(storage, registry, worker_count=2) as pool:
        storage.sync.enqueue(Job("note"))
        storage.sync.drained(timeout=LONG)
    assert pool.state == "stopped"
    assert storage.sync.list_servers() == []
    with pytest.raises(KeyError), WorkerPool(storage, registry) as pool:
        raise KeyError
    assert pool.state == "stopped"


@pytest.mark.parametrize("before", [True, False])
def test_a_stop_at_once_gives_what_runs_no_time(storage, make, before) -> None:
    shots: dict[str, Snapshot] = {}
    pool = make(servers=2, shutdown_timeout=3600)
    pool.listeners.append(lambda shot: shots.update({shot.server_id: shot}))
    storage.sync.enqueue_many([Job("hold") for _ in range(6)])
    pool.start()
    wait(lambda: busy(storage) == 4)
    if before:
        assert not pool.stop().join(0.05)
    assert pool.stop(at_once=True).join(LONG)
    assert storage.sync.get_job_counts()[JobState.ENQUEUED] == 6
    assert sum(shot.cut_short for shot in shots.values()) == 4


def test_a_stop_at_once_counts_for_servers_that_were_about_to_leave(storage, make) -> None:
    pool = make(servers=2, worker_count=1, shutdown_timeout=3600)
    storage.sync.enqueue_many([Job("hold") for _ in range(2)])
    pool.start()
    wait(lambda: busy(storage) == 2)
    pool.resize(servers=1)
    wait(lambda: len(pool._posts) == 1)
    assert pool.stop(at_once=True).join(LONG)
    assert storage.sync.get_job_counts()[JobState.ENQUEUED] == 2


def test_slots_change_while_it_runs(storage, make, go) -> None:
    pool = make(worker_count=1, servers=2).start()
    storage.sync.enqueue_many([Job("hold") for _ in range(20)])
    wait(lambda: busy(storage) == 2)
    assert pool.resize(5) is pool
    wait(lambda: busy(storage) == 10)
    pool.resize(2)
    go.set()
    storage.sync.drained(timeout=LONG)
    assert works(pool)


def test_servers_come_and_go_while_it_runs(storage, make, go) -> None:
    pool = make().start()
    storage.sync.enqueue_many([Job("hold") for _ in range(20)])
    wait(lambda: busy(storage) == 2)
    pool.resize(servers=4)
    wait(lambda: busy(storage) == 8)
    assert len(storage.sync.list_servers()) == 4
    go.set()
    storage.sync.drained(timeout=LONG)
    pool.resize(servers=1)
    wait(lambda: len(storage.sync.list_servers()) == 1)
    assert works(pool)


def test_new_servers_have_the_slots_that_the_others_were_resized_to(make) -> None:
    pool = make().start()
    pool.resize(4)
    pool.resize(servers=3)
    assert works(pool)


def test_a_size_set_while_it_is_stopped_counts_from_the_next_start(storage, make) -> None:
    pool = make().resize(3, servers=2)
    pool.start()
    assert works(pool)
    pool.stop().join(LONG)
    pool.resize(2, servers=3)
    pool.start()
    assert works(pool)


@pytest.mark.parametrize("size", [{"worker_count": 0}, {"servers": 0}, {"worker_count": "2"}, {"servers": 1_001}])
def test_a_size_that_can_not_be_is_refused(storage, registry, make, size) -> None:
    pool = make()
    with pytest.raises(InvalidValue, match=next(iter(size))):
        pool.resize(**size)
    with pytest.raises(InvalidValue, match=next(iter(size))):
        WorkerPool(storage, registry, **size)
    assert (pool.worker_count, pool.servers) == (2, 1)


def test_options_are_those_of_servers(storage, registry) -> None:
    assert WorkerPool(storage, registry, ServerConfig("mailer")).config.server_name == "mailer"
    assert WorkerPool(storage, registry, queues=["mail"]).config.queues == ("mail",)
    with pytest.raises(UnknownOption, match="did you mean 'worker_count'"):
        WorkerPool(storage, registry, worker_cuont=3)
    with pytest.raises(InvalidValue, match="expected where to be 'thread', 'process' or 'dask', got 'threads'"):
        WorkerPool(storage, registry, where="threads")


def test_listeners_hear_of_every_server(make) -> None:
    pool = make(servers=3)
    heard: list[Snapshot] = []
    pool.listeners.append(heard.append)
    pool.start()
    wait(lambda: len({snapshot.server_id for snapshot in heard}) == 3)
    assert {snapshot.slots for snapshot in heard} == {2}
    pool.stop().join(LONG)
    last = {snapshot.server_id: snapshot.slots for snapshot in heard}
    assert list(last.values()) == [0, 0, 0]


def test_it_shows_its_state(make) -> None:
    pool = make(server_name="mailer", servers=2)
    assert repr(pool) == "WorkerPool('mailer', 2 × 2 slots, stopped)"
    pool.start()
    wait(lambda: pool.state == "running")
    assert repr(pool.resize(3)) == "WorkerPool('mailer', 2 × 3 slots, running)"


def test_a_storage_that_was_closed_makes_it_fail_and_say_why(registry, caplog) -> None:
    storage = MemoryStorage()
    storage.sync.close()
    pool = WorkerPool(storage, registry).start()
    assert pool.join(LONG)
    assert (pool.state, pool.is_running) == ("failed", False)
    assert isinstance(pool.error, StorageClosed)
    assert "ended by an error" in caplog.text
    assert repr(pool).endswith("failed)")


def test_a_server_that_can_not_start_ends_the_others_too_and_the_pool_may_start_again(
    registry, storage, monkeypatch
) -> None:
    right, answers = storage.register_server, iter([True, False])

    async def sometimes(info: ServerInfo) -> None:
        if not next(answers, True):
            raise StorageError("no more servers")
        await right(info)

    monkeypatch.setattr(storage, "register_server", sometimes)
    pool = WorkerPool(storage, registry, servers=3, worker_count=1, fetch_batch_size=1).start()
    wait(lambda: pool.state == "failed")
    assert "no more servers" in str(pool.error)
    assert storage.sync.list_servers() == []
    pool.start()
    assert pool.error is None
    assert works(pool)
    assert pool.stop().join(LONG)


async def exit_in_a_child_task() -> None:
    async def child() -> None:
        raise SystemExit(3)

    await asyncio.gather(asyncio.create_task(child()))


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()


async def exit_in_a_callback() -> None:
    def callback() -> None:
        raise KeyboardInterrupt

    asyncio.get_running_loop().call_soon(callback)


@pytest.mark.parametrize("end", [exit_in_a_child_task, stop_the_loop, exit_in_a_callback])
def test_a_job_that_ends_the_loop_does_not_end_the_pool(storage, registry, make, end, caplog) -> None:
    registry.register("end", end)
    pool = make().start()
    storage.sync.enqueue_many([Job("end") for _ in range(5)])
    storage.sync.drained(timeout=LONG)
    assert works(pool)
    assert pool.state == "running"
    assert "goes on" in caplog.text


def test_it_stops_though_a_job_ignores_every_cancellation(storage, registry, make) -> None:
    @registry.task
    async def ignore() -> None:
        while True:
            try:
                await asyncio.sleep(0.001)
            except BaseException as error:
                if isinstance(error, GeneratorExit):
                    raise

    pool = make(shutdown_timeout=0.05, lease=60).start()
    storage.sync.enqueue(Job("ignore"))
    wait(lambda: busy(storage) == 1)
    assert pool.stop().join(LONG)
    assert pool.state == "stopped"
    assert busy(storage) == 1
