"""Username and password: beside the URL or in it, and never to be seen."""

import asyncio
import traceback
from typing import Any
from urllib.parse import quote

import pytest

from qml_nb.errors import StorageUnavailable
from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage
from tests.servers.asking import ask
from tests.verbs import exercise, said_by, work_once

SECRET = "s3cr3t p@ss/w:rd?#%é"
WRONG = "wr0ng-0ne"
QUOTED = quote(SECRET, safe="")


@pytest.fixture(scope="module")
def place(servers: LocalServers) -> str:
    """The host and port of a server with a password, and a user of its own."""
    url = servers.redis(password=SECRET)
    ask(url, "ACL SETUSER", "joe", "on", f">{SECRET}", "~*", "&*", "+@all")
    ask(url, "ACL SETUSER", "reader", "on", f">{SECRET}", "~*", "&*", "+@read")
    return url.rpartition("@")[2].partition("/")[0]


@pytest.fixture(scope="module")
def cluster_place(servers: LocalServers) -> str:
    """The host and port of a cluster of one with a password."""
    return servers.redis_cluster(1, password=SECRET).rpartition("@")[2]


@pytest.mark.parametrize(
    ("login", "options"),
    [
        ("", {"password": SECRET}),
        ("", {"username": "joe", "password": SECRET}),
        (f":{QUOTED}@", {}),
        (f"joe:{QUOTED}@", {}),
        (f"default:{QUOTED}@", {"username": "joe"}),
        (f"joe:{WRONG}@", {"password": SECRET}),
        ("joe@", {"password": SECRET}),
    ],
)
async def test_a_login_is_used_wherever_it_is_given(
    connect: Any, place: str, login: str, options: dict[str, Any]
) -> None:
    await exercise(await connect(f"redis://{login}{place}/0", **options))


async def test_the_user_is_the_one_that_was_named(connect: Any, place: str) -> None:
    await work_once(await connect(f"redis://{place}", username="joe", password=SECRET))

    clients = ask(f"redis://:{QUOTED}@{place}", "CLIENT LIST")
    assert "joe" in {client["user"] for client in clients}


async def test_a_cluster_takes_a_login_too(connect: Any, cluster_place: str) -> None:
    await exercise(await connect(f"redis+cluster://:{QUOTED}@{cluster_place}"))
    await exercise(await connect(f"redis+cluster://{cluster_place}", key_prefix="beside", password=SECRET))


LOGINS = [
    ("", {}),
    ("", {"password": WRONG}),
    ("", {"username": "joe", "password": WRONG}),
    ("", {"username": "nobody", "password": WRONG}),
    (f":{WRONG}@", {}),
    (f"joe:{WRONG}@", {}),
    (f"joe:{QUOTED}@", {"password": WRONG}),
]


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize(("login", "options"), LOGINS)
async def test_a_wrong_login_is_refused_by_name_and_not_shown(
    request: pytest.FixtureRequest, scheme: str, login: str, options: dict[str, Any]
) -> None:
    at = request.getfixturevalue("place" if scheme == "redis" else "cluster_place")

    with pytest.raises(StorageUnavailable, match=r"refuses the login: .*; check username and password$") as refusal:
        await open_storage(f"{scheme}://{login}{at}", **options)
    assert_hidden("".join(traceback.format_exception(refusal.value)))


def assert_hidden(text: str) -> None:
    """No password is in a text, neither as it is nor as a URL has it."""
    assert not [secret for secret in (SECRET, QUOTED, WRONG) if secret in text]


async def test_a_user_who_may_not_write_is_told_which_right_is_missing(connect: Any, place: str) -> None:
    storage = await connect(f"redis://{place}", username="reader", password=SECRET)

    with pytest.raises(StorageUnavailable, match=r"refuses: .*permission.*evalsha"):
        await work_once(storage)


async def test_no_error_of_a_server_that_is_lost_shows_the_password(connect: Any, servers: LocalServers) -> None:
    url = servers.redis(password=SECRET)
    storage = await connect(url, command_timeout=0.2)
    shown = [repr(storage), repr(storage.backend), repr(storage.backend.config)]
    servers.server(url).freeze()
    shown.append(await said_by(storage))
    servers.server(url).kill()
    shown += [await said_by(storage), await said_by(storage)]

    assert_hidden("".join(shown))


async def test_what_fails_in_the_background_shows_no_password(
    connect: Any, servers: LocalServers, caplog: pytest.LogCaptureFixture
) -> None:
    url = servers.redis(password=SECRET)
    storage = await connect(url, command_timeout=0.2)
    await storage.subscribe("telemetry")
    waiting = asyncio.create_task(storage.wait(timeout=5))
    await asyncio.sleep(0.05)
    servers.server(url).kill()

    with pytest.raises(StorageUnavailable):
        await waiting
    assert_hidden(caplog.text)
