"""What few storages use costs the others one look, and leaves nothing behind when it is over."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qml_nb.errors import StorageUnavailable
from qml_nb.job import Job, Report
from qml_nb.servers import LocalServers
from qml_nb.servers.process import LocalServer
from qml_nb.states import JobState
from qml_nb.storage.backend import WATCHED
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import claim, put
from tests.contract.test_wait import sleeps_on, waiting
from tests.redis.wire import Heard, listening
from tests.servers.asking import ask
from tests.verbs import exercise

FEATURES = ("keys", "keyed", "limits", "turns", "alarms", "progress", "watched")


@pytest.fixture
def server(servers: LocalServers, url: str) -> LocalServer:
    """The server of these tests, empty."""
    ask(url, "FLUSHALL")
    return servers.server(url)


def touched(heard: Heard, key: str) -> int:
    """How many commands of scripts went to a key."""
    return sum(f'}}:{key}"' in line for line in heard.by_scripts)


# -- what it costs


async def enqueue(storage: Storage) -> None:
    await storage.enqueue(Job("work"))


async def take(storage: Storage) -> None:
    await storage.fetch_available_jobs_atomic("worker", 5, ["default"])


async def finish(storage: Storage) -> None:
    await storage.complete(await claim(storage))


@pytest.mark.parametrize(("verb", "calls"), [(enqueue, 1), (take, 1), (finish, 2)])
async def test_a_plain_job_costs_no_more_than_a_look_whether_anything_else_is_in_use(
    storage: Storage, server: LocalServer, verb: Callable[[Storage], Awaitable[None]], calls: int
) -> None:
    await exercise(storage)
    ask(server.url, "FLUSHDB")
    await put(storage, 3)
    with listening(server) as heard:
        await verb(storage)

    assert touched(heard, "options") <= calls
    assert [touched(heard, key) for key in FEATURES] == [0] * len(FEATURES)


async def test_plain_jobs_are_stored_by_as_few_commands_as_one(storage: Storage, server: LocalServer) -> None:
    await exercise(storage)
    ask(server.url, "FLUSHDB")
    with listening(server) as heard:
        await put(storage, 100)

    assert len(heard.by_scripts) == 7  # what is in use, ids, bodies, places, the queue, whether anybody waits, counts


# -- what it leaves behind


async def use_keys(storage: Storage) -> None:
    await storage.enqueue_many([Job("work", unique_key="a"), Job("work", unique_key="b", unique_for=60)], now=NOW)
    for job in await storage.fetch_available_jobs_atomic("worker", now=NOW):
        await storage.complete(job, now=NOW)


async def use_limits(storage: Storage) -> None:
    await storage.configure_queue("default", rate=0.001, concurrency=5, max_waiting=9)
    await put(storage, 2)
    await storage.complete(await claim(storage), now=NOW)
    assert not await storage.wait(timeout=0.02)
    await storage.configure_queue("default")
    await storage.complete(await claim(storage), now=NOW)


async def report(storage: Storage) -> None:
    await put(storage)
    job = await claim(storage)
    await storage.backend.report([Report(job.id, job.claim_id, b"0.5")])
    await storage.complete(job, now=NOW)


async def watch(storage: Storage) -> None:
    [job] = await put(storage)
    await storage.backend.watch([job.id], 60)
    await storage.complete(await claim(storage), now=NOW)


@pytest.mark.parametrize("feature", [use_keys, use_limits, report, watch])
async def test_what_is_over_leaves_nothing_behind(
    storage: Storage, server: LocalServer, feature: Callable[[Storage], Awaitable[None]]
) -> None:
    await feature(storage)

    await storage.sweep(now=at(10_000_000))

    assert [key.partition("}:")[2] for key in ask(server.url, "KEYS", "*")] == ["claims"]


@pytest.mark.parametrize("feature", [use_keys, report, watch])
async def test_an_erased_job_leaves_nothing_behind(
    storage: Storage, server: LocalServer, feature: Callable[[Storage], Awaitable[None]]
) -> None:
    await feature(storage)

    for job in await storage.list():
        await storage.delete(job.id)
    await storage.sweep(now=NOW)

    assert [key.partition("}:")[2] for key in ask(server.url, "KEYS", "*")] == ["claims"]


# -- who waits for a turn


async def test_who_looks_when_the_next_turn_comes_is_not_disturbed_before(
    storage: Storage, server: LocalServer
) -> None:
    await exercise(storage)
    await storage.configure_queue("a", rate=0.001)
    await put(storage, 2, queue="a")
    await storage.fetch_and_lock_job("worker", ["a"])
    task = await waiting(storage, ["a"])
    with listening(server) as heard:
        for _ in range(20):
            await storage.enqueue(Job("work", queue="a"))

    assert len(heard.sent) == 20
    assert await sleeps_on(task)


async def test_who_waits_and_was_forgotten_keeps_nobody_from_looking(storage: Storage) -> None:
    await storage.configure_queue("a", rate=10)
    await put(storage, 2, queue="a")
    await storage.fetch_and_lock_job("worker", ["a"])
    first = await waiting(storage, ["a"])
    second = asyncio.create_task(storage.wait(["a"], 10))
    first.cancel()

    assert await second is True
    assert await storage.fetch_and_lock_job("worker", ["a"]) is not None


# -- messages about watched jobs


@pytest.fixture
async def mute(connect: Any, servers: LocalServers) -> Storage:
    """A storage whose user may read and write, and publish nothing."""
    url = servers.redis(password="secret")
    ask(url, "ACL SETUSER", "mute", "on", ">secret", "~*", "resetchannels", "+@all")
    storage: Storage = await connect(url, username="mute", password="secret")
    return storage


async def test_who_may_not_publish_does_no_less_of_its_work(mute: Storage) -> None:
    [job] = await put(mute)
    await mute.backend.watch([job.id], 60)
    with pytest.raises(StorageUnavailable, match="permission"):
        await mute.publish("channel", b"message")

    assert await mute.complete(await claim(mute)) is True

    assert (await mute.get_job_counts())[JobState.SUCCEEDED] == 1


async def test_a_longer_watch_is_not_cut_short_by_another_one(storage: Storage) -> None:
    [job] = await put(storage)
    inbox = await storage.backend.subscribe(WATCHED)
    await storage.backend.watch([job.id], 60)
    await storage.backend.watch([job.id], 0.001)
    await asyncio.sleep(0.01)

    await storage.complete(await claim(storage))

    assert await asyncio.wait_for(anext(inbox), 5) == job.id.encode()
