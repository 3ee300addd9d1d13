"""Each server has a row in the storage's registry for as long as it runs."""

from __future__ import annotations

import asyncio
import os
import socket

from qml_nb.server import server as server_module
from tests.clock import at
from tests.server.waiting import until


async def test_a_server_appears_with_what_it_is_and_disappears(storage, serve) -> None:
    server = await serve(server_name="mailer", worker_count=7, queues=["mail", "bills"])
    [row] = await storage.list_servers()
    assert (row.server_id, row.server_name, row.worker_count) == (server.server_id, "mailer", 7)
    assert (row.queues, row.host, row.pid) == (("mail", "bills"), socket.gethostname(), os.getpid())
    assert row.started_ts == row.heartbeat_ts > 1_700_000_000
    await server.stop()
    assert await storage.list_servers() == []


async def test_its_heart_beats(storage, serve, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "HEARTBEAT_INTERVAL", 0.02)
    server = await serve()
    [row] = await storage.list_servers()
    await storage.heartbeat(server.server_id, now=at(-(10**9)))
    async with asyncio.timeout(20):
        while (beaten := (await storage.list_servers())[0]).heartbeat_ts < row.heartbeat_ts:
            await asyncio.sleep(0.005)
    assert beaten.started_ts == row.started_ts


async def test_a_row_that_somebody_removed_comes_back(storage, serve, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "HEARTBEAT_INTERVAL", 0.02)
    server = await serve()
    await storage.deregister(server.server_id)
    async with asyncio.timeout(20):
        while not (rows := await storage.list_servers()):
            await asyncio.sleep(0.005)
    assert [row.server_id for row in rows] == [server.server_id]


async def test_a_row_does_not_come_back_after_the_stop(storage, serve, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "HEARTBEAT_INTERVAL", 0.001)
    server = await serve()
    beats = 0
    beat = storage.backend.beat_server

    async def count(*args, **kwargs):
        nonlocal beats
        beats += 1
        return await beat(*args, **kwargs)

    storage.backend.beat_server = count
    await until(lambda: beats > 5)
    await server.stop()
    after = beats
    await asyncio.sleep(0.02)
    assert beats == after
    assert await storage.list_servers() == []


async def test_each_server_has_a_row_of_its_own(storage, serve) -> None:
    servers = [await serve() for _ in range(3)]
    assert {row.server_id for row in await storage.list_servers()} == {server.server_id for server in servers}
