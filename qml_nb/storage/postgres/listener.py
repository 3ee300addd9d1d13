"""What the database tells of itself: who waits for work is woken, who subscribed hears messages."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from contextlib import suppress
from itertools import islice
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import asyncpg

from qml_nb.errors import StorageClosed, StorageError
from qml_nb.storage.postgres.encryption import encryption
from qml_nb.storage.postgres.outlive import Outliving
from qml_nb.storage.postgres.unavailable import FAULTS, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from qml_nb.config import PostgresConfig
    from qml_nb.storage.inbox import Inbox


_PAUSE = 0.5  # seconds between two tries to listen again
_PROOF = "p"  # the kind of notification that proves to the one who sent it that they arrive
_OVERDUE = 2.0  # seconds after which a notification is taken for lost


class Waiter:
    """One call of `wait`."""

    def __init__(self, queues: Collection[str] | None) -> None:
        self.queues = queues
        self.answer: bool | None = None
        self.woken_for: str | None = None
        self.looks_for: str | None = None
        self.told = asyncio.Event()
        """Set when there is an answer, and when it has to look itself."""

    def asks_for(self, queue: str) -> bool:
        """Whether it waits for the queue; "" may be any."""
        return not queue or self.queues is None or queue in self.queues

    async def is_told(self, seconds: float | None) -> None:
        """Return when it is told something, or the time is up; None for no such time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.told.wait()


class Listener:
    """One connection that listens, made when the first one asks, and again when it is lost."""

    def __init__(
        self,
        config: PostgresConfig,
        channel: str,
        fetch_message: Callable[[int], Awaitable[bytes | None]],
        notify: Callable[[str], Awaitable[None]],
        is_deaf: Callable[[], None],
    ) -> None:
        self._config, self._channel, self._fetch_message = config, channel, fetch_message
        self._notify, self._is_deaf = notify, is_deaf
        self.hears: bool | None = None
        """Whether notifications arrive here; None until the first has arrived, or is overdue."""
        self._token, self._arrived = "", asyncio.Event()
        self._proof: asyncio.Task[None] | None = None
        self._connection: Any = None
        self._opening = asyncio.Lock()
        self._outliving = Outliving()
        self._closed = False
        self.waiters: dict[Waiter, None] = {}
        self.inboxes: dict[str, list[Inbox]] = {}
        self._messages: asyncio.Queue[tuple[str, bytes | int] | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Return once whatever is committed from now on is heard, if anything is."""
        if self._connection is None or self._connection.is_closed():
            await self._outliving.wait_for(self._listen(), lambda _: None)

    async def _listen(self) -> None:
        async with self._opening:
            if self._connection is not None and not self._connection.is_closed():
                return
            self._connection = connection = await self._connect()
            connection.add_termination_listener(self._lost)
            loop = asyncio.get_running_loop()
            if self._reader is None:
                self._reader = loop.create_task(self._read())
            if self._proof is not None:
                self._proof.cancel()
            self.hears, self._token, self._arrived = None, token_hex(8), asyncio.Event()
            self._proof = loop.create_task(self._prove(connection))

    async def _connect(self) -> Any:
        config = self._config
        url = config.listen_dsn or config.database_url
        limits = {"timeout": config.connect_timeout, "command_timeout": config.command_timeout}
        try:
            connection = await asyncpg.connect(url, statement_cache_size=0, **limits, **encryption(config, url))
            await self._begin(connection)
        except FAULTS as error:
            raise unavailable(error, config, opening=True, url=url) from error
        return connection

    async def _begin(self, connection: Any) -> None:
        try:
            await connection.add_listener(self._channel, self._hear)
        except BaseException:
            connection.terminate()
            raise
        if self._closed:
            connection.terminate()
            raise StorageClosed

    async def _prove(self, connection: Any) -> None:
        """Find out whether anything arrives: a pooler takes LISTEN, and then keeps what comes to itself."""
        while self.hears is None and not connection.is_closed():
            try:
                await self._notify(f"{_PROOF}:-:{self._token}")
                async with asyncio.timeout(_OVERDUE):
                    await self._arrived.wait()
            except TimeoutError:
                if not (self._arrived.is_set() or connection.is_closed()):
                    self.hears = False
                    self._is_deaf()
            except StorageError:
                await asyncio.sleep(_PAUSE)

    async def known(self) -> bool | None:
        """Return whether notifications arrive, once that is known; None where the database can't be asked."""
        if self._proof is not None and self.hears is None:
            await asyncio.wait([self._proof], timeout=self._config.command_timeout)
        return self.hears

    def _lost(self, _: Any) -> None:
        """Wake everybody: what came meanwhile nobody heard."""
        if not self._closed:
            for waiter in list(self.waiters):
                self._wake(waiter, "")
            if self.inboxes:
                self._outliving.start(self._until_it_listens())

    async def _until_it_listens(self) -> None:
        """Listen again; only after a pause, since a server that ends closes its connections before its port."""
        await asyncio.sleep(0.05)
        while not self._closed and (self._connection is None or self._connection.is_closed()):
            with suppress(StorageError):
                await self.listen()
            await asyncio.sleep(_PAUSE)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        """Take a notification, which anybody in the database can send."""
        with suppress(ValueError):
            kind, (_, first, rest) = payload[:1], payload[1:].split(":", 2)
            if kind == _PROOF:
                self._take(rest)
            elif kind == "w":
                self.wake(rest, int(first))
            elif kind == "t":
                self.look(rest, int(first))
            else:
                channel = b64decode(first, validate=True).decode()
                self._messages.put_nowait((channel, bytes.fromhex(rest) if kind == "m" else int(rest)))

    def _take(self, token: str) -> None:
        if token == self._token:
            self.hears = True  # also where it comes late: the server was busy, and nobody took it away
            self._arrived.set()

    async def _read(self) -> None:
        """Hand messages on in their order, though some must be looked up first."""
        while (heard := await self._messages.get()) is not None:
            channel, body = heard
            if not self.inboxes.get(channel):
                continue
            with suppress(StorageError):  # then this message is lost, as all are while nobody listens
                message = await self._fetch_message(body) if isinstance(body, int) else body
                for inbox in list(self.inboxes.get(channel, ())) if message is not None else ():
                    inbox.put(message)

    def wake(self, queue: str, many: int) -> None:
        """Wake so many of those that wait for the queue, the longest-waiting first; "" may be any queue."""
        for waiter in self._asking(queue, many):
            self._wake(waiter, queue)

    def look(self, queue: str, many: int) -> None:
        """Let so many of those that wait for the queue look whether it gives something; next time the others come first."""
        for waiter in self._asking(queue, many):
            del self.waiters[waiter]
            self.waiters[waiter] = None
            waiter.looks_for = queue
            waiter.told.set()

    def _asking(self, queue: str, many: int) -> list[Waiter]:
        return list(islice((waiter for waiter in self.waiters if waiter.asks_for(queue)), max(many, 0)))

    def let_go(self, waiter: Waiter) -> None:
        """End a wait whose time is up: who is no longer there is not woken in another one's place."""
        self.waiters.pop(waiter, None)
        self._answer(waiter, found=False)

    def hand_on(self, waiter: Waiter) -> None:
        """Let another one have what this one was told, and makes no use of."""
        if waiter.woken_for is not None:
            self.wake(waiter.woken_for, 1)
        elif waiter.looks_for is not None:
            self.look(waiter.looks_for, 1)

    def _wake(self, waiter: Waiter, queue: str) -> None:
        self.waiters.pop(waiter, None)
        waiter.woken_for = queue
        self._answer(waiter, found=True)

    def _answer(self, waiter: Waiter, *, found: bool) -> None:
        if waiter.answer is None:
            waiter.answer = found
        waiter.told.set()

    async def close(self) -> None:
        """Hear nothing more, and let everybody go."""
        self._closed = True
        for waiter in list(self.waiters):
            self._wake(waiter, "")
        await self._outliving.close()
        if self._proof is not None:
            self._proof.cancel()
            await asyncio.wait([self._proof])
        if self._reader is not None:
            self._messages.put_nowait(None)  # what was heard is handed on first
            await asyncio.wait([self._reader])
        for inboxes in self.inboxes.values():
            for inbox in list(inboxes):
                inbox.put(None)
        if self._connection is not None:
            with suppress(*FAULTS):
                await self._connection.close(timeout=self._config.command_timeout)
