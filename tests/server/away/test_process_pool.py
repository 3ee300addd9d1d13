"""A pool whose servers are processes: started, stopped, resized, watched and replaced by one handle."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from threading import Lock
from time import sleep

from qml_nb import (
    Job,
    JobState,
    RetryPolicy,
)
from qml_nb.server.telemetry import Snapshot
from tests.server.away.pools import pids, processes, results, runs, servers_of, wait
from tests.server.waiting import LONG

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


def test_an_initializer_comes_before_everything_else_there(storage, registry, make) -> None:
    registry.register("said", lambda: os.environ["QML_TEST_INITIALIZER"])
    make(servers=2, initializer=lambda: os.environ.update(QML_TEST_INITIALIZER="hello")).start()
    assert results(storage, Job("said"), Job("said")) == ["hello", "hello"]
    assert "QML_TEST_INITIALIZER" not in os.environ


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
