"""The room goes over to another storage while it works, and says what it did. On real servers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from time import perf_counter, sleep
from typing import Any

import pytest

from qml_nb import InvalidValue, Job, JobState, MemoryStorage, Storage, StorageUnavailable
from qml_nb.errors import LocalServersStopped
from qml_nb.load import Mix
from qml_nb.servers import LocalServer
from qml_nb.storage import open_storage
from qml_nb.storage.sync import run_sync
from qml_widgets import ControlRoom
from tests.widgets.conftest import Rooms
from tests.widgets.page import no_threads_left, until
from tests.widgets.test_control_room import newest, wait_for_rate
from tests.widgets.test_room_and_page import say, troubles

LONG = 20.0
LEAVING = "control-room storage"
"""The name of threads that open a storage, or leave one."""
ADDRESSES = {"local Redis": "redis://127.0.0.1:", "local PostgreSQL": "postgresql://postgres@127.0.0.1:"}


def place(room: ControlRoom) -> Any:
    """What the panel shows of the storage."""
    return room._panel.facts["storage"]


def own_server(room: ControlRoom, local: str) -> LocalServer:
    """The room's own server of that kind."""
    servers = room._switch._storages.local
    assert servers._servers is not None
    return servers._servers.server(servers._urls[local])


def opened(url: str) -> Storage:
    storage: Storage = run_sync(open_storage(url))
    return storage


def counts(storage: Storage) -> Any:
    return storage.sync.get_job_counts()


def test_a_new_room_is_on_memory_and_offers_local_servers(room: ControlRoom) -> None:
    assert place(room)["choices"] == ["memory", "local Redis", "local PostgreSQL"]
    assert place(room)["choice"] == "memory"
    assert isinstance(room.storage, MemoryStorage)


def test_one_message_from_the_page_starts_a_server_and_everything_goes_on_there(room: ControlRoom, local: str) -> None:
    room.start()
    wait_for_rate(room, 100)
    memory = room.storage
    say(room, {"do": "storage", "value": local})
    until(lambda: place(room)["choice"] == local, "the choice")
    assert place(room)["where"] == own_server(room, local).url
    assert place(room)["where"].startswith(ADDRESSES[local])
    stored = sum(counts(memory).values())
    until(lambda: newest(room).counts["succeeded"] > 200, "jobs done there")
    wait_for_rate(room, 200)
    assert newest(room).slots == 4
    assert not troubles(room)
    room.stop()
    until(lambda: newest(room).busy == 0 and room.pool.state == "stopped", "the end")
    until(
        lambda: newest(room).counts == {str(state): many for state, many in counts(room.storage).items()},
        "the server's own counts",
    )
    assert sum(counts(memory).values()) == stored


def test_what_is_chosen_is_chosen_at_once_and_the_progress_is_shown(room: ControlRoom, local: str) -> None:
    began = perf_counter()
    future = room.use_storage(local)
    assert perf_counter() - began < 0.05
    assert room._switch.facts["progress"] == f"starting {local.removeprefix('local ')}…"
    assert future.result(LONG) is room.storage
    assert room._switch.facts["progress"] == ""


def test_jobs_left_in_memory_are_counted_and_found_again(room: ControlRoom, local: str) -> None:
    memory = room.storage
    memory.sync.enqueue_many([Job("noop") for _ in range(12)])
    room.use_storage(local).result(LONG)
    until(lambda: place(room)["stays"].startswith("12 unfinished jobs stay in memory"), "what stays")
    assert counts(memory)[JobState.ENQUEUED] == 12
    assert room.use_storage("memory").result(LONG) is memory


def test_jobs_left_on_a_local_server_are_found_again(room: ControlRoom, local: str) -> None:
    room.use_storage(local).result(LONG).sync.enqueue(Job("noop"))
    url = room._switch.facts["where"]
    room.use_storage("memory").result(LONG)
    until(lambda: f"1 unfinished job stays in the {local}" in place(room)["stays"], "what stays")
    again = room.use_storage(local).result(LONG)
    assert counts(again)[JobState.ENQUEUED] == 1
    assert room._switch.facts["where"] == url


def test_any_url_may_be_typed_and_its_jobs_are_seen(server: LocalServer, room: ControlRoom) -> None:
    other = opened(server.url)
    other.sync.enqueue_many([Job("noop") for _ in range(7)])
    say(room, {"do": "storage", "value": f"  {server.url} "})
    until(lambda: room.monitor.samples and newest(room).depth == 7, "the jobs on the server")
    until(lambda: place(room)["choice"] == "URL", "the choice")
    room.use_storage("memory").result(LONG)
    until(lambda: f"7 unfinished jobs stay in {server.url}" in place(room)["stays"], "what stays")
    assert counts(other)[JobState.ENQUEUED] == 7
    other.sync.close()


def test_stop_works_while_a_server_lets_the_room_wait(server: LocalServer, room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    server.freeze()
    future = room.use_storage(server.url)
    began = perf_counter()
    room.stop()
    room.resize(3)
    assert perf_counter() - began < 0.2
    until(lambda: newest(room).busy == 0, "the stop")
    assert not future.done()
    server.thaw()
    assert future.result(LONG) is room.storage
    assert not room.is_running
    assert room.workers == 3


def test_the_newest_choice_counts(server: LocalServer, room: ControlRoom) -> None:
    memory = room.storage
    server.freeze()
    old = room.use_storage(server.url)
    assert room.use_storage("memory").result(LONG) is memory
    server.thaw()
    with pytest.raises(CancelledError):
        old.result(LONG)
    assert room.storage is memory


def test_a_storage_that_was_given_is_offered_and_never_closed(server: LocalServer, new_room: Rooms, local: str) -> None:
    mine, another = opened(server.url), MemoryStorage()
    room = new_room(mine)
    assert (place(room)["choices"][0], place(room)["choice"]) == ("from code", "from code")
    assert place(room)["where"] == server.url
    room.use_storage(local).result(LONG)
    assert room.use_storage("from code").result(LONG) is mine
    assert room.use_storage(another).result(LONG) is another
    until(lambda: place(room)["choice"] == "from code", "the choice")
    room.close()
    assert room.pool.join(LONG)
    assert counts(mine)[JobState.ENQUEUED] == counts(another)[JobState.ENQUEUED] == 0
    mine.sync.close()


def test_local_servers_end_with_the_room(room: ControlRoom, local: str) -> None:
    room.use_storage(local).result(LONG)
    own = own_server(room, local)
    assert own.is_running
    began = perf_counter()
    room.close()
    assert perf_counter() - began < 1
    until(lambda: not own.is_running and not own.directory.exists(), "the end of the server")
    no_threads_left()
    with pytest.raises(InvalidValue, match="make a new ControlRoom"):
        room.use_storage("memory")


def test_a_room_that_closes_while_a_server_starts_leaves_nothing(room: ControlRoom, local: str) -> None:
    future = room.use_storage(local)
    room.close()
    with pytest.raises((CancelledError, InvalidValue, LocalServersStopped, StorageUnavailable)):
        future.result(LONG)
    servers = room._switch._storages.local._servers
    until(lambda: servers is None or repr(servers) == "LocalServers(stopped)", "the end of the server")
    no_threads_left()
    assert servers is None or not servers.directory.exists()


def test_a_running_job_ends_where_it_began(new_room: Rooms, local: str) -> None:
    room = new_room(mix=Mix(noop=0, sleep=1, sleep_seconds=0.5), rate=10)
    room.start()
    memory = room.storage
    until(lambda: room.monitor.samples and newest(room).busy, "a job at work")
    room.use_storage(local).result(LONG)
    until(lambda: counts(memory)[JobState.PROCESSING] == 0, "the end of the job")
    assert counts(memory)[JobState.SUCCEEDED] >= 1


def test_a_burst_goes_to_the_storage_in_use(room: ControlRoom, local: str) -> None:
    room.use_storage(local).result(LONG)
    room.burst(2_500)
    until(lambda: room.monitor.samples and newest(room).depth == 2_500, "the burst")


def test_many_changes_under_load_lose_no_job(room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    for turn in range(9):
        where = ("local PostgreSQL", "local Redis", "memory")[turn % 3]
        room.use_storage(where).result(LONG)
        sleep(0.2)
    room.stop()
    assert room.pool.join(LONG)
    assert room.load.join(LONG)
    until(lambda: LEAVING not in str(threading.enumerate()), "the end of what was left")
    stored = [counts(room.use_storage(where).result(LONG)) for where in ("local PostgreSQL", "local Redis", "memory")]
    assert [each[JobState.PROCESSING] for each in stored] == [0, 0, 0]
    assert sum(sum(each.values()) for each in stored) == room.load.sent
    assert room.load.error is None


async def test_the_loop_of_the_kernel_stays_free_while_storages_come_and_go(
    server: LocalServer, room: ControlRoom, local: str
) -> None:
    room.rate = 1_000
    room.start()
    late: list[float] = []

    async def ring() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0.01)
            late.append(perf_counter() - began - 0.01)

    timer = asyncio.create_task(ring())
    await asyncio.wrap_future(room.use_storage(local))
    await asyncio.sleep(1)
    server.freeze()  # connecting to it takes five seconds
    room.use_storage(server.url)
    await asyncio.sleep(1)
    await asyncio.wrap_future(room.use_storage("memory"))
    server.thaw()
    await asyncio.to_thread(until, lambda: LEAVING not in str(threading.enumerate()), "the end of what was left")
    room.stop()
    timer.cancel()
    assert sorted(late)[int(0.99 * len(late))] < 0.1
