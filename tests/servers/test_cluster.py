"""A Redis Cluster: all of it serves when its URL is there, and a replica takes over from a primary that was killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import RedisCluster
from redis.exceptions import AuthenticationError

from qml_nb.errors import InvalidValue, LocalServerFailed
from qml_nb.servers import LocalServers, local
from tests.servers.asking import ask, until

SLOTS = 16_384


@pytest.fixture(scope="module")
def three() -> Iterator[LocalServers]:
    """A cluster of three primaries."""
    with LocalServers() as servers:
        servers.url = servers.redis_cluster()
        yield servers


def owned(url: str) -> list[int]:
    """How many slots each primary has, as one node sees it, from slot 0 on without a gap."""
    ranges = sorted((start, end) for start, end, *_ in ask(url, "CLUSTER SLOTS"))
    assert [start for start, _ in ranges] == [0, *(end + 1 for _, end in ranges[:-1])]
    return [end + 1 - start for start, end in ranges]


def test_the_url_names_every_node(three) -> None:
    assert three.url == "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in three.nodes)
    assert [three.server(node.url) for node in three.nodes] == list(three.nodes)


def test_every_node_knows_all_and_is_ok(three) -> None:
    for node in three.nodes:
        info = ask(node.url, "CLUSTER INFO")
        assert (info["cluster_state"], info["cluster_known_nodes"], info["cluster_size"]) == ("ok", "3", "3")


def test_the_slots_are_shared_out_evenly(three) -> None:
    for node in three.nodes:
        shares = owned(node.url)
        assert (sum(shares), max(shares) - min(shares)) == (SLOTS, 1)


def test_it_answers_on_every_slot(three) -> None:
    with RedisCluster("127.0.0.1", three.nodes[1].port) as client:
        keys = {client.keyslot(f"key-{number}"): f"key-{number}" for number in range(SLOTS * 14)}
        assert len(keys) == SLOTS
        with client.pipeline() as pipeline:
            for key in keys.values():
                pipeline.set(key, "value")
            assert all(pipeline.execute())
    assert sum(ask(node.url, "DBSIZE") for node in three.nodes) == SLOTS


def test_the_number_of_nodes_may_be_one(servers) -> None:
    servers.redis_cluster(1)
    [[_, _, [host, *_]]] = ask(servers.nodes[0].url, "CLUSTER SLOTS")
    assert host == "127.0.0.1"
    assert owned(servers.nodes[0].url) == [SLOTS]


def test_a_replica_takes_over_from_a_primary_that_was_killed(servers) -> None:
    url = servers.redis_cluster(3, replicas=1, password="secret")
    assert url.startswith("redis+cluster://:secret@127.0.0.1:")
    assert [ask(node.url, "ROLE")[0] for node in servers.nodes] == ["master"] * 3 + ["slave"] * 3
    primary, replica = servers.nodes[1], servers.nodes[4]
    assert ask(replica.url, "ROLE")[2] == primary.port
    with pytest.raises(AuthenticationError):
        ask(f"redis://127.0.0.1:{replica.port}", "PING")

    primary.kill()
    until(lambda: ask(replica.url, "ROLE")[0] == "master")
    until(
        lambda: all(ask(node.url, "CLUSTER INFO")["cluster_state"] == "ok" for node in servers.nodes if node.is_running)
    )
    assert sum(owned(replica.url)) == SLOTS
    primary.restart()
    until(lambda: ask(primary.url, "ROLE")[0] == "slave")


def test_each_primary_has_its_replicas_in_turn(servers) -> None:
    servers.redis_cluster(2, replicas=2, options={"maxmemory": "5mb"})
    primaries, replicas = servers.nodes[:2], servers.nodes[2:]
    assert [ask(node.url, "ROLE")[2] for node in replicas] == [primaries[0].port] * 2 + [primaries[1].port] * 2
    assert {ask(node.url, "CONFIG GET", "maxmemory")["maxmemory"] for node in servers.nodes} == {str(5 * 2**20)}


@pytest.mark.parametrize("option", [{"nodes": 0}, {"nodes": 2.5}, {"replicas": -1}, {"durable": "yes"}])
def test_values_that_can_not_be_are_named(servers, option) -> None:
    with pytest.raises(InvalidValue, match=f"expected {min(option)} to be"):
        servers.redis_cluster(**option)


def test_a_cluster_that_can_not_form_shows_a_log_and_leaves_nothing_running(servers) -> None:
    with pytest.raises(LocalServerFailed, match=r"redis-\d+ did not join the cluster \(.*(?s:.*)accept connections"):
        servers.redis_cluster(options={"cluster-enabled": "no"})
    assert "ended" in repr(servers)
    assert not any(process.poll() is None for process in servers._children._running)


def test_a_cluster_that_was_interrupted_leaves_nothing_running(servers, monkeypatch) -> None:
    def interrupt(primaries, replicas) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "form_cluster", interrupt)
    with pytest.raises(KeyboardInterrupt):
        servers.redis_cluster()
    assert servers.nodes == ()
    assert not any(process.poll() is None for process in servers._children._running)
