"""What the PostgreSQL storage keeps besides jobs, and how it reaches its server: from each event loop by a link of its own."""

from __future__ import annotations

from contextlib import contextmanager
from logging import getLogger
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from msgspec import msgpack
from msgspec.structs import replace

from qml_nb.config import without_password
from qml_nb.errors import CapacityExceeded, QueueFull
from qml_nb.storage.backend import Recurring, ServerInfo
from qml_nb.storage.inbox import Inbox
from qml_nb.storage.links import Links
from qml_nb.storage.postgres.link import FULL, Link
from qml_nb.storage.postgres.names import Names
from qml_nb.storage.postgres.schema import migrate, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qml_nb.config import PostgresConfig

log = getLogger("qml_nb.storage")
T = TypeVar("T")

FIRST_LOOK, LONGEST_LOOK = 0.02, 0.25  # seconds between two looks for work where nothing wakes
_REMEDY = "set listen_dsn to the URL of the server itself"


class PostgresRecords:
    """The verbs of `Backend` that are about records other than jobs."""

    def __init__(self, config: PostgresConfig) -> None:
        self.config = config
        self._names = Names(config.schema_name, config.table_name, config.synchronous_commit)
        self._links = Links(lambda: Link(config, self._names, self._is_deaf), config.command_timeout)
        self._persist = self._links.persist
        self._ready = self._warned = False

    async def open(self) -> None:
        """See `Backend.open`."""
        await self._link()

    async def migrate(self) -> None:
        """See `Backend.migrate`."""
        await migrate(await self._links.get(), self._names)

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._links.close()

    @property
    def hears(self) -> bool | None:
        """Whether wake-ups and messages arrive: False behind most poolers without `listen_dsn`; None before it is known.

        It is found out when the first one waits or subscribes.
        """
        known = [link.listener.hears for link in self._links.opened]
        return False if False in known else True if True in known else None

    def _is_deaf(self) -> None:
        """Warn, once for all event loops."""
        warned, self._warned = self._warned, True
        if not warned:
            log.warning(
                "%s: LISTEN hears nothing, as behind PgBouncer in transaction mode; work is found by looking for it every "
                "%g to %g s, and subscribers hear no message; %s",
                self._listens_at,
                FIRST_LOOK,
                LONGEST_LOOK,
                _REMEDY,
            )

    @property
    def _listens_at(self) -> str:
        return without_password(self.config.listen_dsn or self.config.database_url)

    async def _link(self) -> Link:
        link = await self._links.get()
        if not self._ready:
            await (migrate(link, self._names) if self.config.auto_migrate else require(link, self._names))
            self._ready = True
        return link

    async def _rows(self, verb: str, columns: str, *arguments: Any) -> Sequence[Any]:
        """Call a function of the database, and return these columns of what it returns."""
        link = await self._link()
        with self._counted():
            return await link.fetch(self._names.call(verb, columns, len(arguments)), *arguments)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Say so where jobs don't fit."""
        try:
            yield
        except asyncpg.PostgresError as error:
            if error.sqlstate not in FULL:
                raise
            said = (error.detail or "0 0").split(" ", 2)
            if len(said) > 2:
                raise QueueFull(said[2], int(said[0]), int(said[1])) from None
            raise CapacityExceeded(self.config.max_jobs or 0, int(said[0]), int(said[1])) from None

    async def _value(self, verb: str, *arguments: Any) -> Any:
        return (await self._rows(verb, verb, *arguments))[0][0]

    async def _again(self, verb: str, columns: str, *arguments: Any) -> Sequence[Any]:
        """Call a function that bears repetition, and try again for a while when the connection is lost."""
        return await self._persist(lambda _: self._rows(verb, columns, *arguments))

    # -- locks

    async def lock(self, name: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock`."""
        return bool((await self._again("lock", "lock", name, owner, ttl, now))[0][0])

    async def unlock(self, name: str, owner: str) -> bool:
        """See `Backend.unlock`."""
        return bool(await self._value("unlock", name, owner))

    # -- recurring schedules

    async def put_recurring(self, schedule: Recurring) -> None:
        """See `Backend.put_recurring`."""
        await self._again("put_recurring", "put_recurring", schedule.id, packed(schedule), due_ts(schedule))

    async def drop_recurring(self, schedule_id: str) -> bool:
        """See `Backend.drop_recurring`."""
        return bool(await self._value("drop_recurring", schedule_id))

    async def list_recurring(self) -> list[Recurring]:
        """See `Backend.list_recurring`."""
        rows = await self._again("list_recurring", "list_recurring")
        return [msgpack.decode(row[0], type=Recurring) for row in rows]

    async def due_recurring(self, limit: int, *, now: float | None = None) -> tuple[float, list[Recurring]]:
        """See `Backend.due_recurring`."""
        [(instant, schedules)] = await self._again("due_recurring", "t, schedules", limit, now)
        return instant, [msgpack.decode(schedule, type=Recurring) for schedule in schedules]

    # -- servers

    async def put_server(self, server: ServerInfo, *, now: float | None = None) -> None:
        """See `Backend.put_server`."""
        await self._again("put_server", "put_server", server.server_id, msgpack.encode(server), now)

    async def beat_server(self, server_id: str, *, now: float | None = None) -> bool:
        """See `Backend.beat_server`."""
        return bool((await self._again("beat_server", "beat_server", server_id, now))[0][0])

    async def drop_server(self, server_id: str) -> bool:
        """See `Backend.drop_server`."""
        return bool(await self._value("drop_server", server_id))

    async def list_servers(self) -> list[ServerInfo]:
        """See `Backend.list_servers`."""
        rows = await self._again("list_servers", "value, started, beat")
        return [
            replace(msgpack.decode(value, type=ServerInfo), started_ts=started, heartbeat_ts=beat)
            for value, started, beat in rows
        ]

    # -- messages

    async def publish(self, channel: str, message: bytes) -> None:
        """See `Backend.publish`."""
        await self._value("publish", channel, message)

    async def subscribe(self, channel: str) -> Inbox:
        """See `Backend.subscribe`."""
        listener = (await self._link()).listener
        await listener.listen()
        if await listener.known() is False:
            log.warning("%s: who subscribed to %r will hear nothing; %s", self._listens_at, channel, _REMEDY)
        inboxes = listener.inboxes.setdefault(channel, [])

        def leave(inbox: Inbox) -> None:
            if inbox in inboxes:
                inboxes.remove(inbox)

        inbox = Inbox(leave)
        inboxes.append(inbox)
        return inbox


def packed(schedule: Recurring) -> bytes:
    """Return a schedule as it is stored: the same bytes for equal ones, though one has a whole number where another has a float."""
    return msgpack.encode(msgpack.decode(msgpack.encode(schedule), type=Recurring))


def due_ts(schedule: Recurring) -> float | None:
    """Return the instant from which a schedule is due; None: never."""
    return schedule.next_ts if schedule.enabled else None
