"""The registry of servers, on the storage's clock."""

from msgspec.structs import replace

from qml_nb.storage.backend import ServerInfo
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at

MAILER = ServerInfo("mailer-1", "mailer", 20, ("mail", "ü"), "host", 4711)
OTHER = ServerInfo("another-1", "another", 1)


def seen(server: ServerInfo, started: float, heartbeat: float) -> ServerInfo:
    """The server as the registry shows it, with instants in seconds after `NOW`."""
    return replace(server, started_ts=at(started).timestamp(), heartbeat_ts=at(heartbeat).timestamp())


async def test_there_are_none_at_first(storage: Storage) -> None:
    assert await storage.list_servers() == []


async def test_servers_come_back_equal_and_by_id(storage: Storage) -> None:
    await storage.register_server(MAILER, now=NOW)
    await storage.register_server(OTHER, now=at(1))

    assert await storage.list_servers() == [seen(OTHER, 1, 1), seen(MAILER, 0, 0)]


async def test_the_instants_are_the_storages_whatever_the_server_says(storage: Storage) -> None:
    await storage.register_server(replace(MAILER, started_ts=1.0, heartbeat_ts=2.0), now=NOW)

    assert await storage.list_servers() == [seen(MAILER, 0, 0)]


async def test_a_heartbeat_is_noted(storage: Storage) -> None:
    await storage.register_server(MAILER, now=NOW)
    await storage.register_server(OTHER, now=NOW)

    assert await storage.heartbeat(MAILER.server_id, now=at(5)) is True

    assert await storage.list_servers() == [seen(OTHER, 0, 0), seen(MAILER, 0, 5)]


async def test_a_server_that_registers_again_starts_again(storage: Storage) -> None:
    await storage.register_server(MAILER, now=NOW)
    await storage.heartbeat(MAILER.server_id, now=at(5))

    await storage.register_server(replace(MAILER, worker_count=5), now=at(9))

    assert await storage.list_servers() == [seen(replace(MAILER, worker_count=5), 9, 9)]


async def test_a_deregistered_server_is_gone(storage: Storage) -> None:
    await storage.register_server(MAILER, now=NOW)

    assert await storage.deregister(MAILER.server_id) is True
    assert await storage.deregister(MAILER.server_id) is False
    assert await storage.heartbeat(MAILER.server_id) is False

    assert await storage.list_servers() == []


async def test_a_server_unheard_of_for_five_minutes_is_forgotten(storage: Storage) -> None:
    await storage.register_server(MAILER, now=NOW)
    await storage.register_server(OTHER, now=NOW)
    await storage.heartbeat(MAILER.server_id, now=at(5))

    await storage.sweep(now=at(299.75))
    assert len(await storage.list_servers()) == 2
    await storage.sweep(now=at(300))
    assert await storage.list_servers() == [seen(MAILER, 0, 5)]
    await storage.sweep(now=at(1_000))

    assert await storage.list_servers() == []
    assert await storage.heartbeat(MAILER.server_id, now=at(1_000)) is False
    assert await storage.deregister(MAILER.server_id) is False


async def test_a_forgotten_server_may_register_again(storage: Storage) -> None:
    await storage.register_server(MAILER, now=NOW)
    await storage.sweep(now=at(300))

    await storage.register_server(MAILER, now=at(301))

    assert await storage.list_servers() == [seen(MAILER, 301, 301)]
