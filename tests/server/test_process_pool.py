"""A pool whose servers are processes: started, stopped, resized, watched and replaced by one handle."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from time import sleep

import pytest

from qml_nb import (
    InvalidValue,
    Job,
    JobState,
    MemoryStorage,
    RemoteError,
    RetryPolicy,
    ServerDied,
    StorageClosed,
    StorageUnavailable,
    UnknownOption,
    WorkerPool,
)
from qml_nb.server import elsewhere
from qml_nb.server.telemetry import Snapshot
from qml_nb.servers import LocalServers
from qml_nb.servers.reaper import birth
from tests.server.away import in_a_notebook, pools, processes, redis_storage, results, wait
from tests.server.waiting import LONG, threads


@pytest.fixture(scope="module", autouse=True)
def as_in_a_notebook() -> Iterator[None]:
    with in_a_notebook(sys.modules[__name__]):
        yield


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServers]:
    with LocalServers() as servers:
        yield servers


@pytest.fixture(scope="module")
def url(local) -> str:
    return local.redis()


@pytest.fixture
def storage(url):
    with redis_storage(url) as storage:
        yield storage


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every process and every thread of a pool ends with it."""
    yield
    wait(lambda: not processes())
    wait(lambda: not threads())


@pytest.fixture
def make(storage, registry) -> Iterator:
    """Makes pools, and stops them after the test."""
    registry.register("pid", os.getpid)
    with pools(storage, registry, where="process") as make:
        yield make


def pids(storage, jobs: int = 10) -> set[int]:
    """The processes that ran some jobs."""
    return set(results(storage, *(Job("pid") for _ in range(jobs))))


def runs(pool: WorkerPool) -> bool:
    return pool.state == "running"


def servers_of(storage) -> set[int]:
    return {row.pid for row in storage.sync.list_servers()}


# -- start, stop, resize


def test_each_server_is_a_process_and_runs_tasks_of_a_notebook(storage, registry, make) -> None:
    secret = "from a cell"

    @registry.task
    async def work(number: int, *, text: str) -> list:
        await asyncio.sleep(0.02)
        return [os.getpid(), secret, number, text]

    pool = make(servers=2)
    assert pool.start() is pool
    assert pool.state == "starting"
    wait(lambda: runs(pool))
    found = results(storage, *(Job("work", [number], {"text": "ü"}) for number in range(8)))
    assert [result[1:] for result in found] == [["from a cell", number, "ü"] for number in range(8)]
    assert {result[0] for result in found} == servers_of(storage)
    assert len(servers_of(storage) & processes()) == 2
    assert pool.error is None


def test_stop_lets_jobs_end_and_returns_at_once(storage, registry, make, tmp_path) -> None:
    @registry.task
    def hold(path: str) -> str:
        while not os.path.exists(path):
            sleep(0.01)
        return "ended"

    pool = make(shutdown_timeout=LONG).start()
    storage.sync.enqueue(job := Job("hold", [str(tmp_path / "go")]))
    wait(lambda: storage.sync.get(job.id).state is JobState.PROCESSING)
    assert pool.stop() is pool
    assert (pool.state, pool.join(0)) == ("stopping", False)
    (tmp_path / "go").touch()
    assert pool.join(LONG)
    assert (pool.state, pool.error) == ("stopped", None)
    assert storage.sync.get(job.id).result == "ended"
    assert storage.sync.list_servers() == []


def test_it_may_be_stopped_at_any_moment_of_its_start_and_started_again(storage, make) -> None:
    pool = make(servers=2)
    for turn in range(4):
        pool.start()
        sleep(0.15 * turn)
        assert pool.stop().join(LONG)
        assert (pool.state, pool.error) == ("stopped", None)
    pool.start()
    assert pids(storage) <= servers_of(storage)


def test_slots_and_servers_change_while_it_runs(storage, registry, make, tmp_path) -> None:
    @registry.task
    def hold(path: str) -> None:
        while not os.path.exists(path):
            sleep(0.01)

    def busy() -> int:
        return storage.sync.get_job_counts()[JobState.PROCESSING]

    pool = make(worker_count=1, shutdown_timeout=LONG).start()
    storage.sync.enqueue_many([Job("hold", [str(tmp_path / "go")]) for _ in range(12)])
    wait(lambda: busy() == 1)
    assert pool.resize(3) is pool
    wait(lambda: busy() == 3)
    pool.resize(servers=2)
    wait(lambda: busy() == 6)
    first = servers_of(storage)
    (tmp_path / "go").touch()
    pool.resize(2, servers=1)
    wait(lambda: len(servers_of(storage)) == 1)
    assert servers_of(storage) < first
    assert pids(storage) == servers_of(storage)


def test_listeners_hear_of_every_server_and_of_its_end(storage, make) -> None:
    heard: list[Snapshot] = []
    pool = make(servers=2)
    pool.listeners.append(heard.append)
    pool.start()
    wait(lambda: len({snapshot.server_id for snapshot in heard}) == 2)
    pids(storage, 30)
    pool.stop().join(LONG)
    last = {snapshot.server_id: snapshot for snapshot in heard}
    assert [snapshot.slots for snapshot in last.values()] == [0, 0]
    assert sum(snapshot.succeeded for snapshot in last.values()) == 30
    assert sum(sum(snapshot.phases["run"].values()) for snapshot in heard) == 30


def test_its_tasks_print_where_it_prints(storage, registry, make, capfd) -> None:
    registry.register("say", lambda: print("said"))
    make().start()
    results(storage, Job("say"))
    assert capfd.readouterr().out == "said\n"


def test_a_url_with_options_is_as_good_as_a_storage(url, storage, make, local) -> None:
    given = make(storage=url, storage_options={"key_prefix": storage.backend.config.key_prefix}).start()
    assert pids(storage) == servers_of(storage)
    assert results(given.storage, Job("pid"))[0] in servers_of(storage)


def test_no_password_shows_on_a_command_line_or_in_the_environment(registry, make, local) -> None:
    from qml_nb import RedisStorage

    url = local.redis(password="hush-hush")
    storage = RedisStorage(url)
    pool = make(storage=storage).start()
    wait(lambda: runs(pool))
    for pid in servers_of(storage):
        for what in ("cmdline", "environ"):
            assert b"hush" not in Path(f"/proc/{pid}/{what}").read_bytes()
    assert pids(storage) == servers_of(storage)


def test_its_processes_are_out_of_reach_of_ctrl_c_and_of_the_input(storage, registry, make) -> None:
    registry.register("look", lambda: [os.getsid(0) == os.getpid(), sys.stdin.read()])
    make().start()
    assert results(storage, Job("look")) == [[True, ""]]


def test_processor_tasks_have_processes_of_their_own_in_each_server(storage, registry, make) -> None:
    registry.register("own", lambda: [os.getppid(), os.getpid()], process=True)
    make(process_count=1).start()
    [[server, own]] = results(storage, Job("own"))
    assert {server} == servers_of(storage)
    assert own != server


# -- what travels


def test_retry_policy_middleware_hooks_and_modules_travel(storage, registry, make, tmp_path, monkeypatch) -> None:
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_the_cell.py").write_text("calls = []\n\ndef work(): raise ValueError('broken')\n")
    registry.register("work", importlib.import_module("of_the_cell").work)
    registry.register("moves", lambda: sys.modules["of_the_cell"].calls)

    @registry.on_state_change
    def hook(job, old, new) -> None:
        sys.modules["of_the_cell"].calls.append([job.method, old.value, new.value])

    @registry.middleware
    async def doubled(_job, _ctx, task):
        return [await task()] * 2

    make(retry=RetryPolicy.fixed(0)).start()
    job = Job("work", max_retries=1)
    results(storage, job)
    found = storage.sync.get(job.id)
    assert (found.attempt, found.error.partition("\n")[0]) == (2, "ValueError: broken")
    moves = [["work", "enqueued", "processing"], ["work", "processing", "awaiting_retry"]]
    wait(lambda: results(storage, Job("moves"))[0][0][:2] == moves)


def test_tasks_that_are_registered_while_it_runs_follow(storage, registry, make) -> None:
    make().start()
    pids(storage)
    registry.register("pid", lambda: -1)
    wait(lambda: pids(storage) == {-1})
    registry.register("new", lambda: "new")

    @registry.middleware
    async def doubled(_job, _ctx, task):
        return [await task()] * 2

    wait(lambda: results(storage, Job("new", max_retries=9)) == [["new", "new"]])


def test_a_later_task_that_can_not_travel_leaves_the_others_as_they_were(storage, registry, make, caplog) -> None:
    pool = make().start()
    before = pids(storage)
    lock = Lock()
    registry.register("locked", lambda: lock.locked())
    wait(lambda: "servers in other processes keep the tasks that they have" in caplog.text)
    assert "expected task 'locked' to be" in caplog.text
    assert pids(storage) == before
    assert runs(pool)


# -- what can't be


def test_a_storage_in_memory_is_refused_with_a_way_out(registry) -> None:
    for storage in (MemoryStorage(), "memory://"):
        with pytest.raises(InvalidValue) as raised:
            WorkerPool(storage, registry, where="process")
        assert "each process would have a memory of its own" in str(raised.value)
        assert all(text in str(raised.value) for text in ("redis://", "postgresql://", "LocalServers", "'thread'"))


def test_what_can_not_be_is_refused(storage, registry, url) -> None:
    with pytest.raises(InvalidValue, match="expected where to be 'thread', 'process' or 'dask', got 'proces'"):
        WorkerPool(storage, registry, where="proces")
    with pytest.raises(InvalidValue, match="client to be given with where='dask' only"):
        WorkerPool(storage, registry, where="process", client="tcp://127.0.0.1:8786")
    with pytest.raises(InvalidValue, match="storage_options to come with a URL"):
        WorkerPool(storage, registry, storage_options={"key_prefix": "x"})
    with pytest.raises(UnknownOption, match="did you mean 'key_prefix'"):
        WorkerPool(url, registry, storage_options={"key_prefx": "x"})
    storage.sync.close()
    with pytest.raises(StorageClosed):
        WorkerPool(storage, registry, where="process")


@pytest.mark.parametrize("kind", ["task", "middleware", "hook"])
def test_what_can_not_travel_is_named_before_anything_starts(storage, registry, make, kind) -> None:
    lock = Lock()

    def locked() -> None:
        lock.acquire()

    async def around(_job, _ctx, task):
        with lock:
            return await task()

    if kind == "task":
        registry.register("locked", locked)
    elif kind == "middleware":
        registry.middleware(around)
    else:
        registry.on_state_change(lambda *_: lock.acquire())
    pool = make()
    name = {"task": "task 'locked'", "middleware": r"registry.chain\[0\]", "hook": r"registry.hooks\[0\]"}[kind]
    with pytest.raises(InvalidValue, match=f"expected {name} to be something .* TypeError: cannot pickle"):
        pool.start()
    assert pool.state == "stopped"


class Unreadable:
    """Can be packed, and not read."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self):
        return exec, (self.how,)


def test_what_can_not_be_read_there_makes_it_fail_and_say_why(storage, registry, make, caplog) -> None:
    broken = Unreadable("import no_such_module")
    registry.register("broken", lambda: broken)
    pool = make(servers=2).start()
    assert pool.join(LONG)
    assert pool.state == "failed"
    assert isinstance(pool.error, RemoteError)
    assert str(pool.error).startswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert "ModuleNotFoundError" in pool.error.kinds
    assert "ended by an error" in caplog.text
    registry.register("broken", print)
    pool.start()
    assert pids(storage) <= servers_of(storage)


def test_processes_that_die_before_they_have_started_are_not_replaced_for_ever(registry, make, caplog) -> None:
    deadly = Unreadable("import os; os._exit(7)")
    registry.register("deadly", lambda: deadly)
    pool = make().start()
    assert pool.join(LONG)
    assert (pool.state, type(pool.error)) == ("failed", ServerDied)
    assert "ended with status 7" in str(pool.error)
    assert caplog.text.count("a new server starts in") == 2


def test_a_server_that_is_away_is_waited_for(registry, server) -> None:
    registry.register("pid", os.getpid)
    server.kill()
    with (
        redis_storage(server.url, command_timeout=0.3) as storage,
        pools(storage, registry, where="process") as make,
    ):
        pool = make().start()
        wait(lambda: pool.error)
        assert isinstance(pool.error, StorageUnavailable)
        assert pool.state == "starting"
        server.restart()
        wait(lambda: runs(pool))
        assert pool.error is None
        assert pids(storage) == servers_of(storage)
        server.kill()
        pool.stop()
        assert pool.join(LONG)


def test_a_pool_that_waits_for_its_server_can_be_stopped(registry, server) -> None:
    server.kill()
    with redis_storage(server.url) as storage, pools(storage, registry, where="process") as make:
        pool = make().start()
        assert pool.stop().join(LONG)
        assert (pool.state, pool.error) == ("stopped", None)


def test_on_postgres_it_works_and_says_what_keeps_it_from_working(local, registry) -> None:
    url = local.postgres()
    registry.register("pid", os.getpid)
    with pools(url, registry, where="process", servers=2) as make:
        pool = make(storage_options={"schema_name": "none", "auto_migrate": False}).start()
        assert pool.join(LONG)
        assert (pool.state, type(pool.error)) == ("failed", RemoteError)
        assert "SchemaMismatch" in str(pool.error)
        pool = make(storage_options={"schema_name": "pool"}).start()
        assert pids(pool.storage) <= servers_of(pool.storage)
        pool.stop().join(LONG)
        assert pool.storage.sync.list_servers() == []


# -- processes that end by themselves


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def leave_a_child_behind() -> None:
    """End, though a forked process still holds what this one held."""
    if not os.fork():
        sleep(3)
    os._exit(4)


@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda: os._exit(3), "ended with status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by signal 9"),
        (segfault, "was killed by signal 11"),
        (leave_a_child_behind, "ended with status 4"),
    ],
)
def test_a_server_whose_process_dies_is_replaced_and_the_other_goes_on(storage, registry, make, die, how) -> None:
    registry.register("die", die)
    heard: dict[str, int] = {}
    pool = make(servers=2, server_name="mortal")
    pool.listeners.append(lambda snapshot: heard.update({snapshot.server_id: snapshot.slots}))
    pool.start()
    wait(lambda: runs(pool) and len(heard) == 2)
    first = servers_of(storage)
    storage.sync.enqueue(Job("die", max_retries=9))
    wait(lambda: pool.error)
    assert isinstance(pool.error, ServerDied)
    assert str(pool.error).startswith(f"a server of 'mortal' {how} (process ")
    assert pool.state == "running"
    wait(lambda: len({pid for pid in first if birth(pid)}) == 1)
    assert len(pids(storage)) == 1
    wait(lambda: len({pid for pid in servers_of(storage) if birth(pid)}) == 2)
    wait(lambda: sorted(heard.values()) == [0, 2, 2])
    pool.stop().join(LONG)
    assert (pool.state, pool.error) == ("stopped", None)


def test_its_error_is_gone_once_the_next_one_is_steady(storage, registry, make, monkeypatch) -> None:
    monkeypatch.setattr("qml_nb.server.posts.STEADY", 0.3)
    registry.register("die", lambda: os._exit(3))
    pool = make().start()
    storage.sync.enqueue(Job("die", max_retries=9))
    wait(lambda: pool.error)
    wait(lambda: pool.error is None)
    assert runs(pool)


def test_one_that_does_not_stop_is_killed(storage, registry, make, monkeypatch) -> None:
    monkeypatch.setattr(elsewhere, "_LAST_SECONDS", 0.2)

    @registry.task
    async def spin() -> None:
        while True:
            pass

    pool = make(job_timeout=None).start()
    storage.sync.enqueue(job := Job("spin"))
    wait(lambda: storage.sync.get(job.id).state is JobState.PROCESSING)
    assert pool.stop().join(LONG)
    assert (pool.state, pool.error) == ("stopped", None)
