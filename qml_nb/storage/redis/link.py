"""The connections of one event loop to the server, the cluster, or whichever primary the sentinels name."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from qml_nb.errors import StorageUnavailable
from qml_nb.storage.redis.target import Target

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine

    from qml_nb.config import RedisConfig

T = TypeVar("T")
Argument: TypeAlias = bytes | str | float

_LOST = (RedisConnectionError, RedisClusterException, ClusterDownError, TryAgainError, OSError)
_LATE = (RedisTimeoutError, TimeoutError)


class Script:
    """A verb in Lua: its file, after the part that all share."""

    def __init__(self, name: str) -> None:
        folder = files("qml_nb.storage.redis")
        self.name = name
        self.text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("shared", name)).encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()


class ConnectionLost(StorageUnavailable):
    """The connection broke: what was sent last may have been done, or not. It is worth another try at once."""


class Link:
    """One event loop's connections; they close when that loop shuts down its asynchronous generators."""

    def __init__(self, config: RedisConfig) -> None:
        self._target = target = Target.of(config)
        self._url, self._patience = config.url, config.command_timeout
        self.tag = f"{{{config.key_prefix}}}:"
        self._gate = asyncio.Semaphore(config.pool_size)
        connect = {"single": target.single, "cluster": target.cluster, "sentinel": target.primary}
        self._client: Any = connect[target.kind]()
        self._unhurried: dict[tuple[str, int] | None, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper = self._until_shutdown()

    async def open(self) -> None:
        """Try the connection, and see to it that it is closed in time."""
        await anext(self._keeper)
        await self.command("EXISTS", f"{self.tag}claims")

    async def close(self) -> None:
        """Let go of every connection, and of who waits on one."""
        for task in self._tasks:
            task.cancel()
        for client in (*self._unhurried.values(), self._client):
            with suppress(RedisError, OSError):
                await client.aclose()
        self._unhurried.clear()

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """Run a verb; it touches the keys of this storage only."""
        async with self._gate, self._translated():
            try:
                return await self._client.evalsha(script.sha, 1, self.tag, *arguments)
            except NoScriptError:  # a fresh server, one that was restarted, SCRIPT FLUSH
                return await self._client.eval(script.text, 1, self.tag, *arguments)

    async def command(self, name: str, *arguments: Argument) -> Any:
        """Run one command, on the node of this storage's keys."""
        async with self._gate, self._translated():
            return await self._client.execute_command(name, *arguments)

    async def pop(self, key: str, timeout: float) -> bytes | None:
        """Take the first element of a list as soon as there is one, on a connection of its own."""
        client = await self._without_haste()
        task = self.spawn(client.execute_command("BLPOP", key, timeout))
        try:
            async with self._translated(), asyncio.timeout(timeout + self._patience):
                popped = await task
        finally:
            task.cancel()
        return popped[1] if popped else None

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside its caller, that ends with this link at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def subscribe(self, channel: str) -> Any:
        """Return redis-py's subscription, once the server has noted it."""
        async with self._translated():
            subscription = (await self._without_haste()).pubsub()
            await subscription.subscribe(channel)
            await subscription.get_message(timeout=self._patience)
            return subscription

    async def _without_haste(self) -> Any:
        """Return a client for what may take its time, of the server that has this storage's keys."""
        target, where = self._target, None
        if target.kind == "cluster":
            async with self._translated():
                node = (await self._client.initialize()).get_node_from_key(self.tag)
            where = (node.host, node.port)
        if where not in self._unhurried:
            options: dict[str, Any] = {"socket_timeout": None, "max_connections": None}
            if where is not None:
                options |= {"host": where[0], "port": where[1]}
            self._unhurried[where] = (target.primary if target.kind == "sentinel" else target.single)(**options)
        return self._unhurried[where]

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Raise what redis-py raises as errors of this library."""
        try:
            yield
        except AuthenticationError as error:
            raise StorageUnavailable(f"{self._name} refuses the login: {error}; check username and password") from error
        except _LATE as error:
            raise StorageUnavailable(
                f"{self._name} did not answer within {self._patience:g} s (command_timeout); "
                "what was sent may still be done: jobs sent again under the same ids are stored once"
            ) from error
        except _LOST as error:
            raise ConnectionLost(
                f"the connection to {self._name} is lost or can't be made: {error}; "
                "what was sent last may have been done: jobs sent again under the same ids are stored once"
            ) from error
        except RedisError as error:
            raise StorageUnavailable(f"{self._name} refuses: {error}") from error

    @property
    def _name(self) -> str:
        return f"Redis at {self._url.rpartition('@')[2].partition('://')[2] or self._url}"
