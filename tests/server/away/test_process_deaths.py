"""When the process of a server dies, another one takes its place, and the others go on."""

from __future__ import annotations

import os
import signal
from time import sleep

import pytest

from qml_nb import (
    Job,
    JobState,
    ServerDied,
)
from qml_nb.server import elsewhere
from qml_nb.servers.reaper import birth
from tests.server.away.pools import pids, runs, servers_of, wait
from tests.server.waiting import LONG


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
