"""A Redis server: there when its URL is, and as it was asked for."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from stat import S_IMODE
from threading import get_ident

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError

from qml_nb.errors import InvalidValue, LocalServerFailed, PortTaken
from qml_nb.servers import LocalServers, local
from tests.servers.asking import ask, until


def test_it_answers_when_its_url_is_there(servers) -> None:
    url = servers.redis()
    assert re.fullmatch(r"redis://127\.0\.0\.1:\d+/0", url)
    assert ask(url, "PING")


def test_it_listens_on_loopback_only(servers) -> None:
    assert ask(servers.redis(), "CONFIG GET", "bind") == {"bind": "127.0.0.1"}


def test_each_has_a_port_a_process_and_data_of_its_own(servers) -> None:
    one, other = (servers.server(servers.redis()) for _ in range(2))
    ask(one.url, "SET", "name", "one")
    assert ask(other.url, "GET", "name") is None
    assert len({one.port, other.port}) == len({one.pid, other.pid}) == len({one.directory, other.directory}) == 2


def test_nobody_else_can_look_into_the_directory(servers) -> None:
    server = servers.server(servers.redis())
    assert [S_IMODE(path.stat().st_mode) for path in (servers.directory, server.directory)] == [0o700] * 2
    assert server.directory.parent == servers.directory


def test_the_handle_tells_what_runs(servers) -> None:
    server = servers.server(servers.redis())
    info = ask(server.url, "INFO")
    assert (server.pid, server.port) == (info["process_id"], info["tcp_port"])
    assert "ready to accept connections" in server.log.read_text().lower()


@pytest.mark.parametrize("password", ["secret", "q\"u o\\te's #%/:@\n", "ü€"])
def test_a_password_is_asked_for_and_stands_in_the_url(servers, password) -> None:
    url = servers.redis(password=password)
    assert ask(url, "PING")
    with pytest.raises(AuthenticationError):
        ask(f"redis://127.0.0.1:{servers.server(url).port}/0", "PING")


def test_durable_writes_are_on_disk_when_they_are_answered(servers) -> None:
    setting = {"appendonly": "yes", "appendfsync": "always"}
    url = servers.redis(durable=True)
    assert {**ask(url, "CONFIG GET", "appendonly"), **ask(url, "CONFIG GET", "appendfsync")} == setting


def test_by_default_nothing_is_written_to_disk(servers) -> None:
    url = servers.redis()
    assert ask(url, "CONFIG GET", "appendonly") == {"appendonly": "no"}
    assert ask(url, "CONFIG GET", "save") == {"save": ""}


def test_options_are_lines_of_the_configuration_and_come_last(servers) -> None:
    options = {"maxmemory": "3mb", "appendonly": "yes", "notify-keyspace-events": "", "user": "cat on >meow ~* +get"}
    server = servers.server(servers.redis(options=options))
    assert ask(server.url, "CONFIG GET", "maxmemory") == {"maxmemory": str(3 * 2**20)}
    assert ask(server.url, "CONFIG GET", "appendonly") == {"appendonly": "yes"}
    with pytest.raises(NoPermissionError):
        ask(f"redis://cat:meow@127.0.0.1:{server.port}", "SET", "a", "b")


def test_a_replica_follows_a_server_with_the_same_password(servers) -> None:
    primary = servers.server(servers.redis(password="secret"))
    replica = servers.redis(password="secret", options={"replicaof": f"127.0.0.1 {primary.port}"})
    ask(primary.url, "SET", "name", "value")
    until(lambda: ask(replica, "GET", "name") == "value")


def test_a_server_can_be_started_on_a_port_once_more_with_its_data(servers) -> None:
    first = servers.server(servers.redis(durable=True))
    ask(first.url, "SET", "name", "value")
    first.kill()
    url = servers.redis(port=first.port, durable=True, options={"maxmemory": "9mb"})
    assert url == first.url
    assert ask(url, "GET", "name") == "value"
    assert ask(url, "CONFIG GET", "maxmemory") == {"maxmemory": str(9 * 2**20)}
    assert servers.server(url) is not first


def test_a_port_on_which_one_runs_here_is_refused(servers) -> None:
    server = servers.server(servers.redis())
    with pytest.raises(InvalidValue, match=f"expected port to be free, got {server.port}"):
        servers.redis(port=server.port)
    assert ask(server.url, "PING")


def test_a_port_of_another_process_is_refused_though_a_server_answers_there(servers) -> None:
    with LocalServers() as others:
        port = others.server(others.redis()).port
        with pytest.raises(PortTaken, match=f"redis-{port} did not start"):
            servers.redis(port=port)


@pytest.mark.parametrize("beyond", [0, 10_000])  # a cluster node takes a second port
def test_another_port_is_tried_when_one_is_taken(servers, monkeypatch, beyond) -> None:
    free = local.choice
    with socket.create_server(("127.0.0.1", free(local._PORTS) + beyond)) as stranger:
        ports = [stranger.getsockname()[1] - beyond] * 2
        monkeypatch.setattr(local, "choice", lambda all_ports: ports.pop() if ports else free(all_ports))
        server = servers.server(servers.redis(options={"cluster-enabled": "yes"}))
        assert server.port != stranger.getsockname()[1] - beyond
        assert (ports, ask(server.url, "PING")) == ([], True)


def test_it_gives_up_when_every_port_is_taken(servers, monkeypatch) -> None:
    monkeypatch.setattr(local, "_ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [stranger.getsockname()[1] for stranger in (one, other)]
        monkeypatch.setattr(local, "choice", lambda _: ports.pop())
        with pytest.raises(PortTaken, match="already in use"):
            servers.redis()
    assert ports == []


def test_threads_never_share_a_port(servers, monkeypatch) -> None:
    """Though they all think of the same one first."""
    free = local.choice
    first = free(local._PORTS)
    thought: set[int] = set()

    def same_at_first(ports) -> int:
        known = get_ident() in thought
        thought.add(get_ident())
        return free(ports) if known else first

    monkeypatch.setattr(local, "choice", same_at_first)
    with ThreadPoolExecutor(4) as threads:
        urls = [future.result() for future in [threads.submit(servers.redis) for _ in range(8)]]
    assert len({ask(url, "INFO")["process_id"] for url in urls}) == 8


def test_a_server_that_does_not_start_shows_its_log(servers) -> None:
    with pytest.raises(
        LocalServerFailed, match=r"(?s)redis-\d+ did not start; its log ends with.*'maxmemory lots'|\"lots\""
    ):
        servers.redis(options={"maxmemory": "lots"})


def test_a_server_that_is_never_ready_is_ended(servers, monkeypatch) -> None:
    monkeypatch.setattr("qml_nb.servers.process._START_TIMEOUT", 0.0)
    with pytest.raises(LocalServerFailed, match="was not ready after 0 s"):
        servers.redis()
    assert not any(process.poll() is None for process in servers._children._running)


@pytest.mark.parametrize(
    "option", [{"port": 0}, {"port": "6379"}, {"durable": 1}, {"password": ""}, {"password": b"secret"}]
)
def test_values_that_can_not_be_are_named(servers, option) -> None:
    with pytest.raises(InvalidValue, match=f"expected {min(option)} to be"):
        servers.redis(**option)


def test_an_unknown_url_is_refused(servers) -> None:
    with pytest.raises(InvalidValue, match="expected url to be of a server that was started here"):
        servers.server("redis://127.0.0.1:1/0")


def test_repr_says_what_runs_and_keeps_passwords(servers) -> None:
    assert repr(servers) == "LocalServers(none yet)"
    first, second = (servers.server(servers.redis(password="secret")) for _ in range(2))
    first.kill()
    assert repr(servers) == f"LocalServers(redis-{first.port} ended, redis-{second.port})"
    assert [repr(first), repr(second)] == [
        f"LocalServer(redis-{first.port}, ended)",
        f"LocalServer(redis-{second.port}, pid {second.pid})",
    ]
    servers.stop()
    assert repr(servers) == "LocalServers(stopped)"
