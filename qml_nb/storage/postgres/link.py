"""The connections of one event loop to the database."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from qml_nb.storage.postgres.encryption import encryption
from qml_nb.storage.postgres.listener import Listener
from qml_nb.storage.postgres.outlive import Outliving
from qml_nb.storage.postgres.unavailable import FAULTS, all_in_use, is_conflict, unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from qml_nb.config import PostgresConfig
    from qml_nb.storage.postgres.names import Names

T = TypeVar("T")

_CONFLICTS_BORNE = 20
FULL = ("QML01", "QML03")
"""The SQLSTATEs by which is said that jobs don't fit: into the storage, into a queue."""


async def _keep(_: Any) -> None:
    """Reset nothing: statements here leave nothing behind, and asyncpg's reset is a round trip."""


class Connection(asyncpg.Connection):
    """A connection that knows since when it is open."""

    __slots__ = ("born",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.born = monotonic()


class Link:
    """One event loop's connections: a pool, and one more that listens once somebody waits."""

    def __init__(self, config: PostgresConfig, names: Names, is_deaf: Callable[[], None]) -> None:
        self.config, self._names = config, names
        self.listener = Listener(config, names.channel, self._message, self._notify, is_deaf)
        self._pool: Any = None
        self._outliving = Outliving()
        self._is_read_committed = True
        self._keeper = self._until_shutdown()

    async def open(self) -> None:
        """Connect `min_connections`, and see to it that they are closed in time."""
        await anext(self._keeper)
        config = self.config
        self._pool = asyncpg.create_pool(
            config.database_url,
            min_size=config.min_connections,
            max_size=config.max_connections,
            max_inactive_connection_lifetime=config.idle_timeout,
            timeout=config.connect_timeout,
            command_timeout=config.command_timeout,
            statement_cache_size=config.statement_cache_size,
            max_cached_statement_lifetime=0,
            reset=_keep,
            connection_class=Connection,
            **encryption(config, config.database_url),
        )
        try:
            async with asyncio.timeout(config.connect_timeout):
                await self._pool
        except FAULTS as error:
            raise unavailable(error, config, opening=True) from error
        self._is_read_committed = (await self.fetch("show transaction_isolation"))[0][0] == "read committed"

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        """Close when the event loop shuts down its asynchronous generators, if nobody has before."""
        try:
            yield
        finally:
            await self.close()

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[Any]:
        """Run one statement in a transaction of its own, and return its rows."""

        async def run() -> Sequence[Any]:
            async with self.connection() as connection:
                rows: Sequence[Any] = await self._run(connection, statement, arguments)
                return rows

        return await self.again_in_conflict(run)

    async def again_in_conflict(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what is one transaction, and again when the server undid it in favour of another."""
        for left in reversed(range(_CONFLICTS_BORNE)):
            try:
                return await work()
            except asyncpg.PostgresError as error:
                if not is_conflict(error):
                    raise
                if not left:
                    raise unavailable(error, self.config, opening=False) from error
        raise AssertionError

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Give a connection with a transaction open, for as long as the block takes."""
        async with self.connection() as connection, connection.transaction(isolation="read_committed"):
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Give a connection of the pool, for as long as the block takes. What it refuses is said as `unavailable` says it."""
        opening = True
        try:
            connection = await self._acquire()
            opening = False
            try:
                yield connection
            except BaseException:
                self._withdraw(connection)
                raise
            await self._give_back(connection)
        except FAULTS as error:
            if is_conflict(error) or getattr(error, "sqlstate", "") in FULL:
                raise
            if opening and isinstance(error, TimeoutError) and self._pool.get_size() == self.config.max_connections:
                raise all_in_use(self.config) from None
            raise unavailable(error, self.config, opening=opening) from error

    async def _run(self, connection: Any, statement: str, arguments: Sequence[Any]) -> Any:
        """Run it where each step sees what was committed before it, on which the functions rely."""
        if self._is_read_committed:
            return await connection.fetch(statement, *arguments)
        async with connection.transaction(isolation="read_committed"):
            return await connection.fetch(statement, *arguments)

    async def _message(self, number: int) -> bytes | None:
        message: bytes | None = (await self.fetch(self._names.call("message", "message", 1), number))[0][0]
        return message

    async def _notify(self, payload: str) -> None:
        await self.fetch("select pg_notify($1, $2)", self._names.channel, payload)

    async def _give_back(self, connection: Any) -> None:
        born = getattr(connection, "born", None)  # None: it was closed meanwhile, and has left the pool by itself
        if born is not None and monotonic() - born > self.config.max_lifetime:
            _drop(connection)
        await self._pool.release(connection)

    async def _acquire(self) -> Any:
        acquiring = self._pool.acquire(timeout=self.config.connect_timeout)
        if self._pool.get_idle_size():  # it is there: no task, since nothing will be waited for
            return await acquiring
        return await self._outliving.wait_for(_awaited(acquiring), self._withdraw)

    def _withdraw(self, connection: Any) -> None:
        """Have the server told that nobody waits any more, and the connection given back, by a task of its own."""
        self._outliving.start(self._calm(connection))

    async def _calm(self, connection: Any) -> None:
        with suppress(*FAULTS):
            await self._pool.release(connection, timeout=self.config.command_timeout)

    async def close(self) -> None:
        """Let go of all connections."""
        try:
            await self.listener.close()
            if self._pool is not None:
                async with asyncio.timeout(self.config.command_timeout):
                    await self._pool.close()
        except BaseException as error:  # a server that is silent, or a caller who has no more time
            if self._pool is not None:
                self._pool.terminate()
            if not isinstance(error, FAULTS):
                raise
        finally:
            await self._outliving.close()


def _drop(connection: Any) -> None:
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _awaited(acquiring: Awaitable[Any]) -> Any:
    return await acquiring
