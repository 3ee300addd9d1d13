"""Each option of `PostgresConfig` does what it says, as the server sees it.

The others have files of their own: how it is reached in `test_reaching`, what is made and where in `test_schema`, how much is
kept in the contract suite, and values that are refused in `tests/unit/test_config.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qml_nb import Job, PostgresStorage, StorageUnavailable
from qml_nb.servers import LocalServers
from tests.contract.states import put
from tests.places import free_port
from tests.verbs import work_once
from tests.versions import PROGRAMS


@pytest.fixture
def named(url: str, schema: str) -> str:
    """The address under which the server knows the connections of this test."""
    return f"{url}?application_name={schema}"


Count = Callable[[], Awaitable[int]]


@pytest.fixture
def count(watcher: Any, schema: str) -> Count:
    """How many connections the test has."""

    async def count() -> int:
        query = "select count(*) from pg_stat_activity where application_name = $1"
        return int(await watcher.fetchval(query, schema))

    return count


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.01)


async def ask(storage: Any, query: str) -> Any:
    """Ask over a connection of the storage itself."""
    return (await (await storage.backend._links.get()).fetch(query))[0][0]


# -- how many connections, and how long


async def test_max_connections_bounds_those_at_work(connect: Any, named: str, schema, direct, watcher, count) -> None:
    storage = await connect(named, max_connections=3)
    async with direct.transaction():
        await direct.execute(f"lock table {schema}.qml_jobs")
        calls = [asyncio.create_task(storage.get(Job("work").id)) for _ in range(10)]
        await until(lambda: waiting(watcher, schema, 3))
        for _ in range(20):
            await asyncio.sleep(0)
        assert await count() == 3

    assert await asyncio.gather(*calls) == [None] * 10
    assert await count() == 3


async def waiting(watcher: Any, name: str, many: int) -> bool:
    """Whether so many connections of the application wait for a lock."""
    query = "select count(*) from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'"
    return bool(await watcher.fetchval(query, name) == many)


async def test_who_waits_holds_one_more_connection_however_many_they_are(
    connect: Any, named: str, count: Count
) -> None:
    storage = await connect(named, max_connections=2)
    assert await asyncio.gather(*(storage.wait(timeout=0.2) for _ in range(20))) == [False] * 20

    assert await count() <= 3


async def test_who_finds_all_connections_in_use_is_told_so_after_connect_timeout(connect, url, schema, direct) -> None:
    storage = await connect(url, max_connections=1, connect_timeout=0.3)
    async with direct.transaction():
        await direct.execute(f"lock table {schema}.qml_jobs")
        first = asyncio.create_task(storage.get(Job("work").id))
        await asyncio.sleep(0)
        said = r"^all max_connections=1 to .* were in use for 0\.3 s \(connect_timeout\); raise one of the two$"
        with pytest.raises(StorageUnavailable, match=said):
            await storage.get(Job("work").id)

    assert await first is None


@pytest.mark.parametrize("many", [0, 1, 4])
async def test_min_connections_are_opened_at_once_and_stay(connect: Any, named: str, many: int, count: Count) -> None:
    storage = await connect(named, min_connections=many, idle_timeout=0.2)
    assert await count() == max(many, 1)  # the first look needs one
    await asyncio.gather(*(storage.list() for _ in range(20)))

    await until(lambda: counts(count, many))
    await asyncio.sleep(0.3)
    assert await count() == many


async def counts(count: Count, many: int) -> bool:
    """Whether there are so many."""
    return await count() == many


async def test_idle_timeout_closes_what_nobody_uses(connect: Any, url: str, schema: str, direct: Any) -> None:
    brief, lasting = f"{url}?application_name={schema}_brief", f"{url}?application_name={schema}_lasting"
    await connect(lasting, min_connections=0, idle_timeout=0)
    await connect(brief, min_connections=0, idle_timeout=0.2)
    query = "select application_name from pg_stat_activity where application_name like $1"

    async def is_alone() -> bool:
        return [row[0] for row in await direct.fetch(query, f"{schema}\\_%")] == [f"{schema}_lasting"]

    await until(is_alone)


async def test_max_lifetime_makes_connections_anew(connect: Any, url: str) -> None:
    brief, lasting = await connect(url, max_lifetime=0.001), await connect(url)
    for storage, many in ((brief, 5), (lasting, 1)):
        backends = [await ask(storage, "select pg_backend_pid() from pg_sleep(0.002)") for _ in range(5)]
        assert len(set(backends)) == many


# -- statements, and what a commit is worth


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (3, 3), (100, 5)])
async def test_statement_cache_size_is_how_many_statements_a_connection_keeps(connect, url, size, kept) -> None:
    storage = await connect(url, max_connections=1, statement_cache_size=size)
    for number in range(2, 7):
        await ask(storage, f"select {number}")

    assert await prepared(storage) == kept


async def prepared(storage: Any) -> int:
    """How many of the test's own statements a connection keeps."""
    async with (await storage.backend._links.get()).transaction() as connection:
        names = "do $$ begin raise notice '%', (select count(*) from pg_prepared_statements where statement ~ '^select [2-6]$'); end $$"
        heard: list[str] = []

        def listen(_: Any, message: Any) -> None:
            heard.append(message.message)

        connection.add_log_listener(listen)
        await connection.execute(names)  # by the simple protocol, which prepares nothing
        connection.remove_log_listener(listen)
    return int(heard[0])


@pytest.mark.parametrize(
    ("server", "said", "kept"), [("on", None, 1), ("on", False, 0), ("off", None, 0), ("off", True, 1)]
)
async def test_synchronous_commit_decides_what_survives_a_crash(
    connect: Any, servers: LocalServers, server, said, kept
) -> None:
    url = servers.postgres(programs=PROGRAMS, options={"synchronous_commit": server, "wal_writer_delay": "10000ms"})
    await (await connect(url, synchronous_commit=True)).pause_queue("other")  # the tables are on disk
    await put(await connect(url, synchronous_commit=said))
    servers.server(url).kill()
    servers.server(url).restart()

    assert len(await (await connect(url)).list()) == kept


# -- where it listens


async def test_listen_dsn_is_where_it_listens_and_nothing_else(
    connect: Any, named: str, schema: str, direct: Any
) -> None:
    storage = await connect(f"{named}_work", listen_dsn=f"{named}_listen")
    waiting = asyncio.create_task(storage.wait(timeout=30))
    query = "select application_name from pg_stat_activity where application_name like $1 and query ilike 'listen%'"

    async def listens() -> bool:
        return [row[0] for row in await direct.fetch(query, f"{schema}\\_%")] == [f"{schema}_listen"]

    await until(listens)
    await storage.enqueue(Job("work"))
    assert await waiting is True


async def test_where_nobody_listens_jobs_are_stored_and_who_waits_is_told(connect: Any, url: str) -> None:
    nowhere = f"postgresql://127.0.0.1:{free_port()}/d"
    storage = await connect(url, listen_dsn=nowhere, command_timeout=0.2)
    await work_once(storage)

    with pytest.raises(StorageUnavailable, match=f"no connection to {nowhere}: "):
        await storage.wait(timeout=0.1)


# -- given together


@pytest.mark.parametrize("options", [{"min_connections": 6, "max_connections": 5}])
def test_options_that_do_not_go_together_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected min_connections to be at most 5, got 6"):
        PostgresStorage(**options)
