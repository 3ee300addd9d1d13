"""What a test does to a server: it has happened when the call returns."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from qml_nb.errors import LocalServerFailed
from qml_nb.servers.reaper import birth
from tests.servers.asking import ask


@pytest.fixture
def server(servers):
    """A durable server, with one key."""
    server = servers.server(servers.redis(durable=True))
    ask(server.url, "SET", "name", "value")
    return server


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_server_that_was_ended_is_gone(server, end) -> None:
    getattr(server, end)()
    assert not server.is_running
    assert birth(server.pid) == ""
    with pytest.raises(RedisConnectionError):
        ask(server.url, "PING")


def test_terminate_lets_it_finish(server) -> None:
    server.terminate()
    assert "bye bye" in server.log.read_text()


@pytest.mark.parametrize("end", ["kill", "terminate", "freeze", "thaw"])
def test_a_durable_server_has_its_data_after_a_restart(server, end) -> None:
    before = (server.url, server.port, server.directory, server.pid)
    getattr(server, end)()
    server.restart()
    assert ask(server.url, "GET", "name") == "value"
    assert (server.url, server.port, server.directory) == before[:3]
    assert server.pid == ask(server.url, "INFO")["process_id"] != before[3]


def test_any_other_forgets(servers) -> None:
    server = servers.server(servers.redis())
    ask(server.url, "SET", "name", "value")
    server.restart()
    assert ask(server.url, "GET", "name") is None


def test_a_large_file_is_loaded_before_restart_returns(server) -> None:
    ask(server.url, "EVAL", "for i = 1, 100000 do redis.call('SET', i, i) end", 0)
    server.kill()
    server.restart()
    assert ask(server.url, "DBSIZE") == 100_001


def test_a_frozen_server_does_not_answer_until_it_is_thawed(server) -> None:
    server.freeze()
    with pytest.raises(RedisTimeoutError):
        ask(server.url, "PING", timeout=0.1)
    assert server.is_running
    server.thaw()
    assert ask(server.url, "GET", "name") == "value"


def test_freezing_twice_is_freezing_once(server) -> None:
    for _ in range(2):
        server.freeze()
        server.freeze()
        server.thaw()
        server.thaw()
    assert ask(server.url, "PING")


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_frozen_server_can_be_ended(server, end) -> None:
    server.freeze()
    getattr(server, end)()
    assert not server.is_running


def test_a_server_that_shut_itself_down_is_seen_as_ended(server) -> None:
    with pytest.raises(RedisConnectionError):
        ask(server.url, "SHUTDOWN")
    server._process.wait(10)
    assert not server.is_running
    server.restart()
    assert ask(server.url, "GET", "name") == "value"


@pytest.mark.parametrize("name", ["kill", "terminate", "freeze", "thaw"])
def test_nothing_can_be_done_to_a_server_that_has_ended(server, name) -> None:
    server.kill()
    getattr(server, name)()
    assert not server.is_running


def test_a_restart_that_fails_shows_the_log_of_this_start(server) -> None:
    server.kill()
    [conf] = server.directory.glob("*.conf")
    conf.write_text("nonsense yes\n")
    with pytest.raises(LocalServerFailed, match=f"redis-{server.port} did not start(?s:.*)nonsense"):
        server.restart()
    assert not server.is_running
