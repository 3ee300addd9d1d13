"""A server that forgot the scripts gets them again, with the call that needs them."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from qml_nb import Job, JobState, RedisStorage
from qml_nb.servers import LocalServers
from tests.faults.conftest import Connect, start
from tests.faults.load import LONG, until
from tests.servers.asking import ask


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest, servers: LocalServers) -> str:
    """The address of a server of each kind that has scripts."""
    return start(servers, request.param)


async def use(storage: RedisStorage) -> None:
    """Store a job, claim it and settle it."""
    job = Job("work")
    assert await storage.enqueue(job)
    [claimed] = await storage.fetch_available_jobs_atomic("worker")
    assert claimed.id == job.id
    assert await storage.renew(claimed) == [True]
    assert await storage.complete(claimed)
    assert (await storage.get(job.id)).state is JobState.SUCCEEDED
    assert await storage.sweep()


def nodes(servers: LocalServers) -> list[str]:
    """The addresses of all that was started."""
    return [server.url for server in servers._servers.values()]


async def test_after_script_flush(storage: RedisStorage, servers: LocalServers) -> None:
    await use(storage)
    for node in nodes(servers):
        ask(node, "SCRIPT", "FLUSH")
    await use(storage)


async def test_after_a_restart(storage: RedisStorage, servers: LocalServers) -> None:
    await use(storage)
    for node in nodes(servers):
        servers.server(node).restart()
    await use(storage)
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 2


async def test_while_many_calls_are_under_way(storage: RedisStorage, servers: LocalServers) -> None:
    jobs = [Job("work", [number]) for number in range(300)]
    calls = [asyncio.create_task(storage.enqueue(job)) for job in jobs]
    reads = [asyncio.create_task(storage.get(job.id)) for job in jobs]
    for node in nodes(servers):
        with Redis.from_url(node) as client:
            for _ in range(10):
                client.script_flush()
                await asyncio.sleep(0)
    assert all(await asyncio.gather(*calls))
    await asyncio.gather(*reads)
    assert [job.args[0] for job in await storage.backend.get([job.id for job in jobs])] == list(range(300))


async def test_a_waiter_that_sleeps_while_they_are_forgotten_is_woken(connect: Connect, url: str, servers) -> None:
    waiter = asyncio.create_task(connect(url).wait(timeout=60))
    await until(lambda: any(ask(node, "INFO", "clients")["blocked_clients"] for node in nodes(servers)))
    for node in nodes(servers):
        ask(node, "SCRIPT", "FLUSH")
    await connect(url).enqueue(Job("work"))
    assert await asyncio.wait_for(waiter, LONG)
