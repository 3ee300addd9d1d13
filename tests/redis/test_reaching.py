"""How a storage reaches its server, and what a person reads where there is none."""

import asyncio
from time import monotonic
from typing import Any

import pytest

from qml_nb.errors import StorageUnavailable
from qml_nb.servers import LocalServers
from qml_nb.storage import RedisStorage, open_storage
from tests.places import free_port, port_without_answer
from tests.redis.places import SERVICE, start_sentinel
from tests.servers.asking import ask
from tests.verbs import exercise, work_once


async def unavailable(url: str, **options: Any) -> str:
    """What is said when it can't be opened."""
    with pytest.raises(StorageUnavailable) as refusal:
        await open_storage(url, **options)
    return str(refusal.value)


# -- every kind of URL


async def test_a_single_server_is_reached(connect: Any, url: str) -> None:
    await exercise(await connect(url))


async def test_a_unix_socket_is_reached(connect: Any, servers: LocalServers) -> None:
    path = servers.directory / "socket"
    servers.redis(options={"unixsocket": str(path)})

    await exercise(await connect(f"unix://{path}"))


async def test_a_cluster_is_reached_though_the_first_host_is_down(connect: Any, cluster_url: str) -> None:
    hosts = cluster_url.partition("://")[2]

    await exercise(await connect(f"redis+cluster://127.0.0.1:{free_port()},{hosts}"))


async def test_one_host_of_a_cluster_is_enough(connect: Any, cluster_url: str) -> None:
    await exercise(await connect(cluster_url.partition(",")[0]))


@pytest.fixture
def watched(servers: LocalServers) -> tuple[str, str, str]:
    """A primary and its replica, and the URL of the service by a sentinel, the first of which is down."""
    primary = servers.redis()
    replica = servers.redis(options={"replicaof": f"127.0.0.1 {servers.server(primary).port}"})
    port = start_sentinel(servers, primary, replica)
    return primary, replica, f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/{SERVICE}"


async def test_sentinels_say_where_the_primary_is(connect: Any, watched: tuple[str, str, str]) -> None:
    primary, _, url = watched
    await exercise(await connect(url))
    await work_once(await connect(f"{url}/5"))

    assert {database: bool(ask(f"{primary[:-1]}{database}", "DBSIZE")) for database in (0, 4, 5)} == {
        0: True,
        4: False,
        5: True,
    }


async def test_the_storage_goes_where_the_sentinels_send_it(
    connect: Any, servers: LocalServers, watched: tuple[str, str, str]
) -> None:
    primary, replica, url = watched
    storage = await connect(url, command_timeout=1.0)
    await work_once(storage)

    servers.server(primary).kill()

    async with asyncio.timeout(30):
        while primary_by(url) != servers.server(replica).port:
            await asyncio.sleep(0.05)
        await work_once(storage)


def primary_by(url: str) -> int:
    """The port of the primary, as the last sentinel of the URL sees it."""
    sentinel = url.rpartition("/")[0].rpartition(",")[2]
    return int(ask(f"redis://{sentinel}", "SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


# -- nobody is there


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis://127.0.0.1:1",
            r"^no connection to Redis at 127\.0\.0\.1:1: .*; check the url, or start a server with",
        ),
        ("unix:///no/such/socket", "^no connection to Redis at /no/such/socket: .*; check the url"),
        ("redis://no-such-host.invalid", "^no connection to Redis at no-such-host.invalid:6379: .*; check the url"),
        ("redis+cluster://127.0.0.1:1,127.0.0.1:2", r"127\.0\.0\.1:1, 127\.0\.0\.1:2.*LocalServers\(\)\.redis_cluster"),
        ("redis+sentinel://127.0.0.1:1/main", "sentinels at 127.0.0.1:1 call 'main' is not found.*; check the url"),
    ],
)
async def test_where_no_server_is_the_error_comes_at_once_and_says_what_to_do(url: str, said: str) -> None:
    start = monotonic()

    with pytest.raises(StorageUnavailable, match=said):
        await open_storage(url)
    assert monotonic() - start < 2


async def test_nothing_is_said_of_jobs_sent_before_any_was() -> None:
    assert "sent" not in await unavailable("redis://127.0.0.1:1")


async def test_a_service_that_no_sentinel_knows_is_named(watched: tuple[str, str, str]) -> None:
    said = await unavailable(watched[2].replace(SERVICE, "another"))

    assert "call 'another' is not found: no sentinel answers, or none knows a primary of that name" in said
    assert len(said) < 300


async def test_a_single_server_that_is_called_a_cluster_says_so(url: str) -> None:
    said = await unavailable(url.replace("redis://", "redis+cluster://"))

    assert said.endswith("is no cluster; write redis:// instead of redis+cluster://")


async def test_a_node_that_is_called_a_single_server_says_so(servers: LocalServers, cluster_url: str) -> None:
    said = [await try_to_work(node.url) for node in servers.nodes]

    refused = [text for text in said if text]
    assert len(refused) == 2
    assert all(
        text.endswith("is one node of a cluster; write redis+cluster:// instead of redis://") for text in refused
    )


async def try_to_work(url: str) -> str:
    """What is said when the storage is used, nothing if it works: on the node that has its slot."""
    try:
        async with RedisStorage(url, key_prefix="lone"):
            return ""
    except StorageUnavailable as refusal:
        return str(refusal)


async def test_a_database_that_is_not_there_is_refused(url: str) -> None:
    assert "DB index is out of range" in await unavailable(url, database=9_999)


# -- somebody is there and says nothing


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_connection_timeout_ends_the_wait_for_a_connection(scheme: str) -> None:
    start = monotonic()
    with port_without_answer() as port:
        said = await unavailable(f"{scheme}://127.0.0.1:{port}", connection_timeout=0.3, command_timeout=60)

    assert 0.2 < monotonic() - start < 2
    assert f"Redis at 127.0.0.1:{port} took no connection within 0.3 s (connection_timeout)" in said


async def test_connection_timeout_holds_for_sentinels_too() -> None:
    start = monotonic()
    with port_without_answer() as port:
        await unavailable(f"redis+sentinel://127.0.0.1:{port}/main", connection_timeout=0.3, command_timeout=60)

    assert 0.2 < monotonic() - start < 2


async def test_command_timeout_ends_the_wait_for_a_frozen_server(connect: Any, servers: LocalServers) -> None:
    url = servers.redis()
    storage = await connect(url, command_timeout=0.3, connection_timeout=60)
    await work_once(storage)
    servers.server(url).freeze()
    start = monotonic()

    with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.3 s \(command_timeout\); .*stored once"):
        await work_once(storage)
    assert 0.2 < monotonic() - start < 2

    servers.server(url).thaw()
    await work_once(await connect(url, key_prefix="after"))


async def test_command_timeout_ends_the_opening_of_a_frozen_server(servers: LocalServers) -> None:
    url = servers.redis()
    servers.server(url).freeze()
    start = monotonic()

    assert "did not answer within 0.3 s (command_timeout)" in await unavailable(url, command_timeout=0.3)
    assert monotonic() - start < 2
    servers.server(url).kill()
