"""Storages that share a server: by prefix, by database, and by cluster slot."""

import asyncio
from typing import Any

import pytest
from redis.cluster import key_slot

from qml_nb.job import Job
from qml_nb.servers import LocalServers
from qml_nb.storage.backend import WATCHED
from qml_nb.storage.storage import Storage
from tests.servers.asking import ask
from tests.verbs import SCHEDULE, SERVER, exercise, traces

NOTHING: tuple[object, ...] = ([], {}, [], [], [], [], {}, None)
APART: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"key_prefix": "one"}, {"key_prefix": "other"}),
    ({"key_prefix": "one"}, {"key_prefix": "one:"}),
    ({"key_prefix": "one"}, {"key_prefix": "on"}),
    ({"database": 0}, {"database": 5}),
]


@pytest.fixture
def empty_url(servers: LocalServers, url: str) -> str:
    """A server where nobody else keeps anything."""
    ask(url, "FLUSHALL")
    return url


@pytest.fixture(params=APART, ids=str)
async def two(request: pytest.FixtureRequest, connect: Any, empty_url: str) -> tuple[Storage, Storage]:
    """Two storages on one server."""
    one, other = request.param
    return await connect(empty_url, **one), await connect(empty_url, **other)


async def test_they_see_nothing_of_each_other(two: tuple[Storage, Storage]) -> None:
    one, other = two
    await exercise(one)

    assert await traces(other) == NOTHING
    assert await other.fetch_and_lock_job("worker") is None
    assert not await other.wait(timeout=0)


async def test_each_has_locks_servers_schedules_and_pauses_of_its_own(two: tuple[Storage, Storage]) -> None:
    one, other = two
    await exercise(one)

    assert await other.try_acquire_lock("lock", "another")
    assert await other.pause_queue("paused")
    assert not await other.heartbeat(SERVER.server_id)
    assert not await other.deregister(SERVER.server_id)
    assert not await other.remove_recurring(SCHEDULE.id)


async def test_neither_hears_the_others_messages(two: tuple[Storage, Storage]) -> None:
    one, other = two
    listening = await other.subscribe("telemetry")

    await one.publish("telemetry", b"of one")
    await other.publish("telemetry", b"of the other")

    assert await asyncio.wait_for(anext(listening), 5) == b"of the other"


async def test_neither_hears_what_becomes_of_the_others_jobs(two: tuple[Storage, Storage]) -> None:
    job = Job("work")
    heard = []
    for storage in two:
        await storage.enqueue(job)
        heard.append(await storage.backend.subscribe(WATCHED))
        await storage.backend.watch([job.id], 60)

    for storage in two:
        await storage.cancel(job.id)
        await storage.backend.publish(WATCHED, b"no more")

    for inbox in heard:
        assert [await asyncio.wait_for(anext(inbox), 5) for _ in range(2)] == [job.id.encode(), b"no more"]


async def test_neither_wakes_who_waits_at_the_other(two: tuple[Storage, Storage]) -> None:
    one, other = two
    waiting = asyncio.create_task(other.wait(timeout=0.5))
    await asyncio.sleep(0.05)  # the waiter parks

    await exercise(one)

    assert not await waiting


async def test_a_database_in_the_url_is_the_same_as_beside_it(connect: Any, empty_url: str) -> None:
    in_url, beside = await connect(empty_url.replace("/0", "/5")), await connect(empty_url, database=5)
    await exercise(in_url)

    assert await traces(beside) == await traces(in_url)
    assert ask(empty_url, "DBSIZE") == 0


async def test_what_stands_beside_the_url_counts_more(connect: Any, empty_url: str) -> None:
    await exercise(await connect(empty_url.replace("/0", "/5"), database=3))

    assert ask(empty_url.replace("/0", "/3"), "DBSIZE")
    assert not ask(empty_url.replace("/0", "/5"), "DBSIZE")


async def test_every_key_starts_with_the_prefix_in_braces(connect: Any, empty_url: str) -> None:
    await exercise(await connect(empty_url, key_prefix="mine"))

    keys = ask(empty_url, "KEYS", "*")
    assert len(keys) > 20
    assert [key for key in keys if not key.startswith("{mine}:")] == []


async def test_all_keys_lie_in_one_slot_of_a_cluster(connect: Any, servers: LocalServers, cluster_url: str) -> None:
    await exercise(await connect(cluster_url, key_prefix="mine"))

    keys = {node.port: ask(node.url, "KEYS", "{mine}*") for node in servers.nodes}
    assert [len(of_node) > 20 for of_node in keys.values()].count(True) == 1
    assert len({key_slot(key.encode()) for of_node in keys.values() for key in of_node}) == 1


async def test_prefixes_spread_over_a_cluster(connect: Any, servers: LocalServers, cluster_url: str) -> None:
    for prefix in ("a", "b", "c", "d", "e", "f"):
        await exercise(await connect(cluster_url, key_prefix=prefix))

    assert all(ask(node.url, "DBSIZE") for node in servers.nodes)
