"""A database that can't write says so, loses nothing, and everything goes on later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from qml_nb import Job, JobState, Storage, StorageUnavailable
from qml_nb.servers import LocalServer, LocalServers
from qml_nb.servers.reaper import children_of
from qml_nb.storage.postgres.names import Names
from tests.faults.conftest import Connect
from tests.faults.load import load, until
from tests.versions import PROGRAMS


@pytest.fixture
def server(servers: LocalServers) -> LocalServer:
    """A server that is to refuse."""
    return servers.server(servers.postgres(programs=PROGRAMS))


@pytest.fixture
async def admin(server: LocalServer):
    """A connection that sets it up."""
    connection = await asyncpg.connect(server.url)
    yield connection
    await connection.close()


# -- a server that only reads, as one does that has become a standby


async def read_only(admin, word: str) -> None:
    """Let all connections, also those that are open, write no more, or again."""
    await admin.execute(f"alter system set default_transaction_read_only = {word}")
    await admin.execute("select pg_reload_conf()")


async def refuses_to_write(storage: Storage) -> bool:
    try:
        await storage.delete(Job("work").id)
    except StorageUnavailable as error:
        return "can't write: cannot execute " in str(error)
    return False


async def test_a_server_that_only_reads_says_so_and_answers_what_it_can(connect: Connect, server, admin) -> None:
    storage = connect(server.url)
    job = Job("work")
    await storage.enqueue(job)
    await read_only(admin, "on")
    await until(lambda: refuses_to_write(storage))

    said = (
        r"^postgresql://.* can't write: cannot execute .* in a read-only transaction; nothing of this call was stored$"
    )
    for call in (storage.enqueue(Job("work")), storage.fetch_and_lock_job("worker"), storage.sweep()):
        with pytest.raises(StorageUnavailable, match=said):
            await call
    assert (await storage.get(job.id)).id == job.id
    assert len(await storage.list()) == (await storage.get_job_counts())[JobState.ENQUEUED] == 1
    assert await storage.wait(timeout=1)
    assert await connect(server.url).get(job.id)  # a new one finds its tables

    await admin.execute("set default_transaction_read_only = off")
    await read_only(admin, "off")
    await until(lambda: writes(storage))
    assert await storage.fetch_and_lock_job("worker")


async def writes(storage: Storage) -> bool:
    return not await refuses_to_write(storage)


async def test_load_goes_on_once_it_writes_again(connect: Connect, server, admin) -> None:
    async with load(connect(server.url)) as flow:
        for _ in range(2):
            await read_only(admin, "on")
            await flow.is_refused()
            await read_only(admin, "off")
            await flow.goes_on()


# -- a full disk


@contextmanager
def files_bounded_to(server: LocalServer, size: int) -> Iterator[None]:
    """Let no file of the server grow beyond `size`. PostgreSQL takes this for a full disk, on purpose, and no mount is needed."""
    bound(server, size)
    try:
        yield
    finally:
        bound(server, "unlimited")


def bound(server: LocalServer, size: int | str) -> None:
    """Only who owns a process may bound it: root without all its rights may not."""
    for process in (server.pid, *children_of(server.pid)):
        command = ["prlimit", f"--pid={process}", f"--fsize={size}:unlimited"]
        subprocess.run(command, check=True, cwd="/", **server._settings.account)


async def test_load_goes_on_once_the_disk_has_room_again(connect: Connect, server: LocalServer) -> None:
    """The bound lies above a WAL segment's 16 MB, which PostgreSQL could not do without."""
    storage = connect(server.url)
    async with load(storage) as flow:
        with files_bounded_to(server, 20_000_000):
            while not await is_full(storage):
                pass
            while not flow.unsure:
                assert await is_full(storage)  # and so are those that share its round trip
        await flow.goes_on()


async def is_full(storage: Storage) -> bool:
    """Store a megabyte that can't be compressed; True: it is not taken."""
    try:
        await storage.enqueue(Job("filler", [os.urandom(500_000).hex()], queue="filler"))
    except StorageUnavailable as error:
        return "File too large" in str(error)
    return False


async def test_what_a_full_disk_does_not_take_is_not_stored(connect: Connect, server: LocalServer, admin) -> None:
    storage = connect(server.url, schema_name="full")
    job = Job("work")
    await storage.enqueue(job)
    claimed = await storage.fetch_and_lock_job("worker")
    await put_on_full_disk(server, admin, Names("full", "qml_jobs").of("done"))

    said = "can't write: could not extend file .* No space left on device; nothing of this call was stored$"
    for _ in range(3):
        with pytest.raises(StorageUnavailable, match=said):
            await storage.complete(claimed)
    assert (await storage.get(job.id)).state is JobState.PROCESSING
    assert (await storage.get_job_counts())[JobState.PROCESSING] == 1
    assert await storage.renew(claimed) == [True]  # what needs no room goes on
    assert await storage.enqueue(Job("work"))


async def put_on_full_disk(server: LocalServer, admin, table: str) -> None:
    """Let the file of an empty table be one that takes nothing."""
    path = server.directory / "data" / await admin.fetchval("select pg_relation_filepath($1)", table)
    await admin.close()
    server.terminate()
    path.unlink()
    path.symlink_to("/dev/full")
    server.restart()
