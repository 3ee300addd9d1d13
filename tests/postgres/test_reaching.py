"""How a storage reaches its server, and what a person reads where there is none."""

import asyncio
import traceback
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from qml_nb import Job, StorageUnavailable, open_storage
from qml_nb.servers import LocalServers
from tests.places import as_postgres, certificate, free_port, port_without_answer, silent_port, speaking_tls
from tests.verbs import exercise, said_by, work_once
from tests.versions import PROGRAMS

SECRET = "s3cr3t p@ss/w:rd?#%é"
QUOTED = quote(SECRET, safe="")
WRONG = "wr0ng-0ne"
START = r"check the URL, or start a server with LocalServers\(\)\.postgres\(\)$"


async def refusal_of(url: str, **options: Any) -> str:
    """What is said, with all that led to it, when it can't be opened."""
    with pytest.raises(StorageUnavailable) as refusal:
        await open_storage(url, **options)
    return "".join(traceback.format_exception(refusal.value))


# -- every kind of URL


async def test_a_server_is_reached(connect: Any, url: str) -> None:
    await exercise(await connect(url))


async def test_a_unix_socket_is_reached(connect: Any, servers: LocalServers) -> None:
    where = servers.directory / "sockets"
    where.mkdir(mode=0o777)
    where.chmod(0o777)  # the server may run as another user
    address = servers.postgres(
        programs=PROGRAMS, options={"unix_socket_directories": str(where), "listen_addresses": ""}
    )

    await exercise(await connect(f"postgresql://postgres@/postgres?host={where}&port={servers.server(address).port}"))


async def test_of_several_hosts_the_first_that_is_there_is_reached(connect: Any, servers: LocalServers, url) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{servers.server(url).port}"

    await exercise(await connect(f"postgres://postgres@{hosts}/postgres"))


@pytest.mark.parametrize("host", ["[::1]", "h,g"])
async def test_any_form_of_host_gets_as_far_as_the_network(host: str) -> None:
    assert "no connection to" in await refusal_of(f"postgresql://{host}:1/d", connect_timeout=5)


# -- login


@pytest.fixture(scope="module")
def locked(servers: LocalServers) -> str:
    """A server that wants a password."""
    return servers.postgres(programs=PROGRAMS, password=SECRET)


async def test_user_and_password_of_the_url_are_used(connect: Any, locked: str, schema: str) -> None:
    admin = await asyncpg.connect(locked)
    await admin.execute(f"""create role "joe@home" login password '{SECRET}'; create schema {schema} authorization "joe@home";
        grant create on database postgres to "joe@home" """)
    await exercise(await connect(locked.replace("//postgres:", "//joe%40home:")))

    owner = "select tableowner from pg_tables where schemaname = $1 and tablename = 'qml_jobs'"
    assert await admin.fetchval(owner, schema) == "joe@home"
    await admin.close()


@pytest.mark.parametrize("login", ["postgres", f"postgres:{WRONG}", f"nobody:{WRONG}", f"nobody:{QUOTED}"])
async def test_a_wrong_login_is_refused_by_name_and_not_shown(locked: str, login: str) -> None:
    said = await refusal_of(f"postgresql://{login}@{locked.rpartition('@')[2]}")

    user = login.partition(":")[0]
    assert f'refuses the login: password authentication failed for user "{user}"; check user and password\n' in said
    assert_hidden(said)


async def test_a_database_that_is_not_there_is_named(locked: str) -> None:
    said = await refusal_of(locked.rpartition("/")[0] + "/elsewhere")

    assert 'has no such database: database "elsewhere" does not exist; create it, or check the URL\n' in said
    assert_hidden(said)


def assert_hidden(text: str) -> None:
    """No password is in a text, neither as it is nor as a URL has it."""
    assert not [secret for secret in (SECRET, QUOTED, WRONG) if secret in text]


async def test_no_error_of_a_server_that_is_lost_shows_the_password(connect: Any, servers: LocalServers) -> None:
    url = servers.postgres(programs=PROGRAMS, password=SECRET)
    storage = await connect(url, command_timeout=0.2, connect_timeout=0.2)
    shown = [repr(storage), repr(storage.backend), repr(storage.backend.config)]
    servers.server(url).freeze()
    shown += [await said_by(storage), await said_by(storage)]
    servers.server(url).kill()
    shown += [await said_by(storage), await said_by(storage)]

    assert_hidden("".join(shown))


async def test_a_user_who_may_only_read_is_told_what_is_missing(connect: Any, url: str, schema: str, direct) -> None:
    await connect(url)
    try:
        await direct.execute(f"create role reader login; grant usage on schema {schema} to reader")
        await direct.execute(f"grant select on all tables in schema {schema} to reader")
        storage = await connect(url.replace("postgres@", "reader@"))
        assert await storage.list() == []
        with pytest.raises(StorageUnavailable, match=r"refuses: permission denied for (table|sequence) qml_jobs"):
            await storage.enqueue(Job("work"))
    finally:
        await direct.execute("drop owned by reader; drop role reader")


# -- nobody is there, or somebody else


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:s@127.0.0.1:1/d", rf"^no connection to postgresql://u:\*\*\*@127\.0\.0\.1:1/d: .*; {START}"),
        ("postgresql:///d?host=/no/such", rf"^no connection to postgresql:///d\?host=/no/such: .*; {START}"),
        ("postgresql://no-such-host.invalid/d", rf"^no connection to postgresql://no-such-host.invalid/d: .*; {START}"),
        ("postgresql://127.0.0.1:1/d?sslmode=bogus", f"`sslmode` parameter must be one of: disable, .*; {START}"),
    ],
)
async def test_where_no_server_is_the_error_comes_at_once_and_says_what_to_do(url: str, said: str) -> None:
    start = monotonic()

    with pytest.raises(StorageUnavailable, match=said):
        await open_storage(url, command_timeout=60, connect_timeout=60)
    assert monotonic() - start < 20


async def test_nothing_is_said_of_jobs_sent_before_any_was() -> None:
    assert "sent" not in str(await refusal_of("postgresql://127.0.0.1:1/d")).splitlines()[-1]


async def test_a_setting_that_the_server_does_not_know_is_named(url: str) -> None:
    assert 'refuses: unrecognized configuration parameter "colour"' in await refusal_of(f"{url}?colour=red")


# -- somebody is there and says nothing


@pytest.mark.parametrize("silence", [silent_port, port_without_answer])
async def test_connect_timeout_ends_the_wait_for_a_connection(silence: Any) -> None:
    with silence() as port:
        async with asyncio.timeout(20):
            said = await refusal_of(f"postgresql://127.0.0.1:{port}/d", connect_timeout=0.3, command_timeout=60)

    assert f"postgresql://127.0.0.1:{port}/d took no connection within 0.3 s (connect_timeout); check the URL" in said


async def test_command_timeout_ends_the_wait_for_a_frozen_server(connect: Any, servers: LocalServers) -> None:
    url = servers.postgres(programs=PROGRAMS)
    storage = await connect(url, command_timeout=0.3, connect_timeout=60)
    await work_once(storage)
    servers.server(url).freeze()

    async with asyncio.timeout(20):
        with pytest.raises(
            StorageUnavailable, match=r"did not answer within 0\.3 s \(command_timeout\); .*stored once"
        ):
            await work_once(storage)

    servers.server(url).thaw()
    await work_once(await connect(url, schema_name="after"))


async def test_command_timeout_ends_a_statement_that_a_lock_holds_up(
    connect: Any, url, schema, direct, watcher
) -> None:
    storage = await connect(f"{url}?application_name={schema}", command_timeout=0.3)
    async with direct.transaction():
        await direct.execute(f"lock table {schema}.qml_jobs")
        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.3 s \(command_timeout\)"):
            await storage.enqueue(Job("work"))
        await nobody_waits(watcher, schema)  # the server was told, and holds no connection for it

    assert await storage.list() == []
    await work_once(storage)


async def nobody_waits(watcher: Any, name: str) -> None:
    """Return once no statement of the application waits for a lock."""
    waiting = "select count(*) from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while await watcher.fetchval(waiting, name):
            await asyncio.sleep(0.01)


# -- encryption


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that nobody trusts yet."""
    return certificate(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def tls_url(servers: LocalServers, url: str, pem: Path) -> Any:
    """The address where a real server is reached over TLS, and only so."""
    port = servers.server(url).port
    async with speaking_tls(port, pem, as_postgres) as tls_port:
        yield url.replace(f":{port}/", f":{tls_port}/")


async def test_require_ssl_refuses_a_server_without_tls(url: str) -> None:
    assert "rejected SSL upgrade" in await refusal_of(url, require_ssl=True)


@pytest.mark.parametrize("sslmode", ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=require"])
async def test_require_ssl_takes_any_certificate_and_no_less_whatever_the_url_says(connect, tls_url, sslmode) -> None:
    storage = await connect(tls_url + sslmode, require_ssl=True)

    await exercise(storage)


async def test_without_require_ssl_the_url_decides(connect: Any, tls_url: str) -> None:
    await work_once(await connect(tls_url))
    await refusal_of(f"{tls_url}?sslmode=disable")


@pytest.mark.parametrize("require_ssl", [True, False])
async def test_a_url_that_wants_the_certificate_checked_is_obeyed(connect, tls_url, pem, tmp_path, require_ssl) -> None:
    strangers = certificate(tmp_path)
    checked = f"{tls_url}?sslmode=verify-full&sslrootcert="

    await work_once(await connect(f"{checked}{pem}", require_ssl=require_ssl))
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal_of(f"{checked}{strangers}", require_ssl=require_ssl)
