"""Callers that are cancelled while a connection is being made, or the tables are: the others don't notice."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from qml_nb import Job
from qml_nb.servers import LocalServers
from tests.faults.conftest import Connect
from tests.faults.load import LONG, until
from tests.faults.test_cancelled_callers import cancel_some
from tests.versions import PROGRAMS


@pytest.fixture
def url(servers: LocalServers) -> str:
    """The address of a server."""
    return servers.postgres(programs=PROGRAMS)


async def test_those_who_come_first_may_be_cancelled_while_it_opens(connect: Connect, url: str) -> None:
    for seed in range(8):
        storage = connect(url, max_connections=2, connect_timeout=10)
        calls = [asyncio.create_task(storage.get(Job("work").id)) for _ in range(20)]
        await asyncio.sleep(0.001 * seed)
        left = await asyncio.wait_for(cancel_some(calls, seed), LONG)
        assert [call.result() for call in left] == [None] * 10


async def test_the_first_waiters_may_be_cancelled_while_it_begins_to_listen(connect: Connect, url: str) -> None:
    await connect(url).migrate()
    for seed in range(8):
        storage = connect(url, max_connections=2)
        await storage.get(Job("work").id)
        waiters = [asyncio.create_task(storage.wait(timeout=LONG)) for _ in range(10)]
        await asyncio.sleep(0.001 * seed)
        for waiter in waiters[::2]:
            waiter.cancel()
        left = waiters[1::2]
        assert await asyncio.wait_for(storage.enqueue_many([Job("work") for _ in left]), LONG) == 5
        assert await asyncio.wait_for(asyncio.gather(*left), LONG) == [True] * 5
        await storage.fetch_available_jobs_atomic("worker")


async def test_calls_that_need_more_connections_may_be_cancelled(connect: Connect, url: str) -> None:
    server = await asyncpg.connect(url)
    for seed in range(8):
        storage = connect(f"{url}?application_name=seed{seed}", max_connections=3)
        await storage.get(Job("work").id)
        calls = [asyncio.create_task(storage.get(Job("work").id)) for _ in range(20)]
        await asyncio.sleep(0.0005 * seed)
        assert [call.result() for call in await cancel_some(calls, seed)] == [None] * 10
        assert await asyncio.gather(*(storage.get(Job("work").id) for _ in range(20))) == [None] * 20
        query = "select count(*) from pg_stat_activity where application_name = $1"
        assert await server.fetchval(query, f"seed{seed}") <= 3
    await server.close()


async def test_whoever_makes_the_tables_may_be_cancelled(connect: Connect, url: str) -> None:
    server = await asyncpg.connect(url)
    storage = connect(f"{url}?application_name=new", schema_name="new")
    async with server.transaction():
        await server.execute("select pg_advisory_xact_lock(hashtextextended('new.qml_jobs', 0))")
        opening = asyncio.create_task(storage.get(Job("work").id))
        await until(lambda: waiting(url))
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await until(lambda: is_over(url))
    assert opening.cancelled()
    assert await storage.enqueue(Job("work"))
    await server.close()


async def waiting(url: str) -> bool:
    """Whether a connection of the storage waits for the lock."""
    server = await asyncpg.connect(url)
    found = await server.fetchval("select count(*) from pg_locks where not granted")
    await server.close()
    return bool(found)


async def is_over(url: str) -> bool:
    return not await waiting(url)
