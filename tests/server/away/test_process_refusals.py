"""A pool whose servers are processes says what keeps them from starting, and does not try for ever."""

from __future__ import annotations

import os
from threading import Lock

import pytest

from qml_nb import (
    InvalidValue,
    MemoryStorage,
    RemoteError,
    ServerDied,
    StorageClosed,
    StorageUnavailable,
    UnknownOption,
    WorkerPool,
)
from tests.server.away.pools import pids, pools, redis_storage, runs, servers_of, wait
from tests.server.waiting import LONG


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
    with pytest.raises(InvalidValue, match="initializer to be given with other processes only"):
        WorkerPool(storage, registry, initializer=print)
    with pytest.raises(InvalidValue, match="storage_options to come with a URL"):
        WorkerPool(storage, registry, storage_options={"key_prefix": "x"})
    with pytest.raises(UnknownOption, match="did you mean 'key_prefix'"):
        WorkerPool(url, registry, storage_options={"key_prefx": "x"})
    storage.sync.close()
    with pytest.raises(StorageClosed):
        WorkerPool(storage, registry, where="process")


@pytest.mark.parametrize("kind", ["task", "middleware", "hook", "initializer"])
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
    elif kind == "hook":
        registry.on_state_change(lambda *_: lock.acquire())
    pool = make(initializer=locked if kind == "initializer" else None)
    name = {"task": "task 'locked'", "middleware": r"registry.chain\[0\]", "hook": r"registry.hooks\[0\]"}.get(
        kind, kind
    )
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
