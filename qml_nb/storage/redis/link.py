"""The connections of one event loop to the server, the cluster, or whichever primary the sentinels name."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from hashlib import sha1
from importlib.resources import files
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from qml_nb.storage.links import cancellations
from qml_nb.storage.redis.target import disconnect
from qml_nb.storage.redis.unavailable import FAULTS, LATE, unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator

    from qml_nb.config import RedisConfig
    from qml_nb.storage.redis.target import Target

T = TypeVar("T")
Argument: TypeAlias = bytes | str | float


_PARTS = {
    "push_alike": ("push",),
    "settle_well": ("settle",),
    "order": ("claim", "peek", "unpark", "wait"),
    "ends": ("erase", "holders", "move", "push", "report", "settle", "swap_recurring", "sweep", "update"),
    "store": ("push", "swap_recurring"),
    "look": ("get", "watch"),
    "schedule": ("put_recurring", "swap_recurring"),
}
"""Files that verbs start with, in order, after `shared.lua`, and these verbs.

What does the most frequent case comes first: each function that a script makes before it returns takes its time.
"""


class Script:
    """A verb in Lua: its file, after the parts that it shares with others."""

    def __init__(self, name: str) -> None:
        folder = files("qml_nb.storage.redis")
        parts = ("shared", *(part for part, verbs in _PARTS.items() if name in verbs), name)
        self.name = name
        self.text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts).encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()


class Link:
    """One event loop's connections; they close when that loop shuts down its asynchronous generators."""

    def __init__(self, config: RedisConfig, target: Target) -> None:
        self._target = target
        self._config, self._patience, self._opened = config, config.command_timeout, False
        self.tag = f"{{{config.key_prefix}}}:"
        # Two keys, of which one never exists: while the slot moves to another node, keys lie here and there, and for
        # two keys of which one is missing a node answers TRYAGAIN; for one it would run the script on what it has.
        self._keys = (2, self.tag, f"{self.tag}claims")
        self._gate = asyncio.Semaphore(config.pool_size)
        self._silent_at = 0.0
        connect = {"single": target.single, "cluster": target.cluster, "sentinel": target.primary}
        self._client: Any = connect[target.kind]()
        self._unhurried: dict[tuple[str, int] | None, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper = self._until_shutdown()

    async def open(self) -> None:
        """Try the connection, and see to it that it is closed in time."""
        await anext(self._keeper)
        await self.command("EXISTS", f"{self.tag}claims")
        self._opened = True

    async def close(self) -> None:
        """Let go of every connection, and of who waits on one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in (*self._unhurried.values(), self._client):
            with suppress(RedisError, OSError):
                await disconnect(client)
        self._unhurried.clear()

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """Run a verb; it touches the keys of this storage only."""
        return await self._in_turn(lambda: self._run(script, arguments))

    async def _run(self, script: Script, arguments: tuple[Argument, ...]) -> Any:
        try:
            return await self._client.evalsha(script.sha, *self._keys, *arguments)
        except NoScriptError:  # a fresh server, one that was restarted, SCRIPT FLUSH
            return await self._client.eval(script.text, *self._keys, *arguments)

    async def command(self, name: str, *arguments: Argument) -> Any:
        """Run one command, on the node of this storage's keys."""
        return await self._in_turn(lambda: self._client.execute_command(name, *arguments))

    async def pop(self, key: str, timeout: float) -> bytes | None:
        """Take the first element of a list as soon as there is one, on a connection of its own."""
        client = await self._without_haste()
        task = self.spawn(client.execute_command("BLPOP", key, timeout))
        try:
            with self._translated():
                async with asyncio.timeout(timeout + self._patience):
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
        with self._translated():
            subscription = (await self._without_haste()).pubsub()
            try:
                await subscription.subscribe(channel)
                if await subscription.get_message(timeout=self._patience) is None:
                    raise RedisTimeoutError
            except BaseException:
                await subscription.aclose()
                raise
            return subscription

    async def _without_haste(self) -> Any:
        """Return a client for what may take its time, of the server that has this storage's keys."""
        target, where = self._target, None
        if target.kind == "cluster":
            with self._translated():
                node = (await self._client.initialize()).get_node_from_key(self.tag)
            where = (node.host, node.port)
        if where not in self._unhurried:
            options: dict[str, Any] = {"socket_timeout": None, "max_connections": None}
            if where is not None:
                options |= {"host": where[0], "port": where[1]}
            self._unhurried[where] = (target.primary if target.kind == "sentinel" else target.single)(**options)
        return self._unhurried[where]

    async def _in_turn(self, call: Callable[[], Awaitable[T]]) -> T:
        """Wait for a connection, but not on and on behind calls that a silent server lets wait."""
        came, cancelled = monotonic(), cancellations()
        with self._translated():
            async with self._gate:
                if self._silent_at > came:
                    raise RedisTimeoutError
                try:
                    answer = await call()
                except LATE:
                    self._silent_at = monotonic()
                    raise
        if cancellations() > cancelled:  # which `wait_for` of Python 3.11, in redis-py, sometimes swallows
            raise asyncio.CancelledError
        return answer

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what redis-py raises as errors of this library."""
        try:
            yield
        except FAULTS as error:
            raise unavailable(error, self._target, self._config, opening=not self._opened) from error
