"""A cluster whose slots move and whose primaries die: the storage follows, and loses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import Redis

from qml_nb import Job, RedisStorage
from qml_nb.servers import LocalServers
from qml_nb.servers.process import LocalServer
from tests.faults.conftest import Connect
from tests.faults.hearing import publish_until_heard
from tests.faults.load import LONG, load, until
from tests.servers.asking import ask


class Slot:
    """The slot of a storage's keys, and the nodes as a person who moves it sees them."""

    def __init__(self, servers: LocalServers, storage: RedisStorage) -> None:
        self.nodes = servers.nodes
        self.tag = f"{{{storage.backend.config.key_prefix}}}:"
        self.number: int = self.ask(self.nodes[0], "CLUSTER", "KEYSLOT", self.tag)

    def ask(self, node: LocalServer, *command: Any) -> Any:
        return ask(node.url, *command)

    def owner(self) -> LocalServer:
        """The primary that has the slot, as the first node that answers sees it."""
        for start, end, primary, *_ in self.ask(next(n for n in self.nodes if n.is_running), "CLUSTER", "SLOTS"):
            if start <= self.number <= end:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError("nobody has it")

    def open(self, source: LocalServer, target: LocalServer) -> None:
        """Begin to move it: from now on keys may lie here and there."""
        names = [self.ask(node, "CLUSTER", "MYID") for node in (source, target)]
        self.ask(target, "CLUSTER", "SETSLOT", self.number, "IMPORTING", names[0])
        self.ask(source, "CLUSTER", "SETSLOT", self.number, "MIGRATING", names[1])

    def carry(self, source: LocalServer, target: LocalServer, most: int) -> int:
        """Move some keys; returns how many."""
        with Redis.from_url(source.url) as client:
            keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", self.number, most)
            for key in keys:
                client.migrate("127.0.0.1", target.port, [key], 0, 10_000)
        return len(keys)

    def close(self, source: LocalServer, target: LocalServer) -> None:
        """Tell all nodes that it has moved, the new owner first."""
        name = self.ask(target, "CLUSTER", "MYID")
        for node in (target, source, *(node for node in self.nodes if node not in (source, target))):
            self.ask(node, "CLUSTER", "SETSLOT", self.number, "NODE", name)

    def turned_away(self) -> int:
        """How many calls were told to try again, or elsewhere, for the moment."""
        errors = [self.ask(node, "INFO", "errorstats") for node in self.nodes]
        kinds = ("errorstat_TRYAGAIN", "errorstat_ASK")
        return sum(stats[kind]["count"] for stats in errors for kind in kinds if kind in stats)


@pytest.fixture
def three(servers: LocalServers) -> str:
    """The address of a cluster of three."""
    return servers.redis_cluster(3)


async def test_a_slot_moves_while_jobs_flow(connect: Connect, servers: LocalServers, three: str) -> None:
    storage = connect(three)
    slot = Slot(servers, storage)
    messages = await storage.subscribe("news")
    async with load(storage, polling_interval=60) as flow:
        for _ in range(2):
            await move(slot)
            await flow.goes_on()
    await storage.publish("news", b"later")
    assert await asyncio.wait_for(anext(messages), LONG) == b"later"
    print(f"\n{len(flow.stored)} stored, {len(flow.unsure)} unsure, {slot.turned_away()} turned away")


async def move(slot: Slot) -> None:
    """Move the slot to the next node, with calls that come while half of its keys are here and half there."""
    source = await asyncio.to_thread(slot.owner)
    target = slot.nodes[(slot.nodes.index(source) + 1) % 3]
    before = slot.turned_away()
    await asyncio.to_thread(slot.open, source, target)
    await asyncio.to_thread(slot.carry, source, target, 4)
    await until(lambda: slot.turned_away() > before + 5)
    while await asyncio.to_thread(slot.carry, source, target, 100):
        pass
    await asyncio.to_thread(slot.close, source, target)


async def test_a_waiter_sleeps_on_at_the_new_node(connect: Connect, servers: LocalServers, three: str) -> None:
    storage = connect(three)
    slot = Slot(servers, storage)
    waiter = asyncio.create_task(connect(three).wait(timeout=60))
    source, target = slot.owner(), slot.nodes[(slot.nodes.index(slot.owner()) + 1) % 3]
    await until(lambda: ask(source.url, "INFO", "clients")["blocked_clients"])
    slot.open(source, target)
    while slot.carry(source, target, 100):
        pass
    slot.close(source, target)
    await until(lambda: ask(target.url, "INFO", "clients")["blocked_clients"])
    await storage.enqueue(Job("work"))
    assert await asyncio.wait_for(waiter, LONG) is True


async def test_a_replica_takes_over_while_jobs_flow(connect: Connect, servers: LocalServers) -> None:
    url = servers.redis_cluster(3, replicas=1, options={"cluster-node-timeout": "1000"})
    storage = connect(url, command_timeout=10)
    slot = Slot(servers, storage)
    before = [Job("later", [number], queue="later") for number in range(500)]
    await storage.enqueue_many(before)
    primary = slot.owner()
    await asyncio.to_thread(replicated, slot)
    messages = await storage.subscribe("news")
    async with load(storage) as flow:
        primary.kill()
        await until(lambda: asyncio.to_thread(lambda: slot.owner() is not primary))
        flow.forget()  # of the last instants some may be lost: replication is asynchronous
        await flow.goes_on(200)
    claimed = await storage.fetch_available_jobs_atomic("worker", 1_000, ["later"])
    assert [job.id for job in claimed] == [job.id for job in before]
    await publish_until_heard(storage, messages, b"later")


def replicated(slot: Slot) -> None:
    """Return once a replica has all that was written before."""
    with Redis.from_url(slot.owner().url) as client:
        client.set(f"{slot.tag}mark", 1)
        assert client.wait(1, 30_000) == 1
