"""What the Redis storage keeps besides jobs, and how it reaches its server: from each event loop by a link of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import msgpack
from msgspec.structs import replace
from redis.exceptions import RedisError

from qml_nb.errors import JobNotFound, StorageUnavailable
from qml_nb.storage.backend import Recurring, ServerInfo
from qml_nb.storage.inbox import Inbox
from qml_nb.storage.links import Links
from qml_nb.storage.redis.link import Link, Script
from qml_nb.storage.redis.packing import pack_id, pack_limits, unpack_limits
from qml_nb.storage.redis.target import Target

if TYPE_CHECKING:
    from collections.abc import Collection

    from qml_nb.config import QueueConfig, RedisConfig
    from qml_nb.storage.redis.link import Argument

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between two tries of what may be sent again
_MOMENT = 0.001  # the least that BLPOP waits; 0 would mean for ever

script = cache(Script)


def instant(now: float | None) -> Argument:
    """Return an instant as the scripts take it; nothing for the server's clock."""
    return b"" if now is None else repr(now).encode()


class RedisRecords:
    """The verbs of `Backend` that are about records other than jobs."""

    def __init__(self, config: RedisConfig) -> None:
        self.config = config
        self._tag = f"{{{config.key_prefix}}}:"
        self._target = Target.of(config)
        self._links = Links(lambda: Link(config, self._target), config.command_timeout)
        self._link, self._persist = self._links.get, self._links.persist
        self._channels = f"{self._tag}channel:{self._target.database}:"  # to Redis a channel belongs to no database

    async def open(self) -> None:
        """See `Backend.open`."""
        await self._link()

    async def migrate(self) -> None:
        """Nothing to migrate: there is one form so far."""
        await self._link()

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._links.close()

    async def _run(self, verb: str, *arguments: Argument) -> Any:
        return await (await self._link()).run(script(verb), *arguments)

    async def _command(self, name: str, key: str, *arguments: Argument) -> Any:
        return await (await self._link()).command(name, self._tag + key, *arguments)

    async def _again(self, verb: str, mark: int | None, *arguments: Argument) -> Any:
        """Run a verb that bears repetition, and try again for a while when the connection is lost.

        `mark` is the place of the argument that tells the script of it: its answer is then about the first try, too.
        """

        async def attempt(again: bool) -> Any:
            marked = (*arguments[:mark], b"1", *arguments[mark + 1 :]) if again and mark is not None else arguments
            return await self._run(verb, *marked)

        return await self._persist(attempt)

    async def _read(self, name: str, key: str) -> Any:
        return await self._persist(lambda _: self._command(name, key))

    # -- waiting for work

    async def wait(self, queues: Collection[str] | None, timeout: float) -> bool:
        """See `Backend.wait`."""
        link, waiter, end = await self._link(), token_hex(8), monotonic() + timeout
        try:
            return await self._persist(lambda _: self._wait(link, waiter, queues or (), end))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._links.closed and task is not None and not task.cancelling():
                return False
            if not self._links.closed:
                link.spawn(self._pass_on(link, waiter, queues or ()))
            raise

    async def _wait(self, link: Link, waiter: str, queues: Collection[str], end: float) -> bool:
        woken: bytes | None = b""
        while not woken:
            timeout = max(end - monotonic(), 0)
            answer = await link.run(script("wait"), waiter, timeout, 0, *queues)
            if answer == 1:
                return True
            if timeout < _MOMENT:
                return False
            woken = await self._pop(link, waiter, queues, end, answer)
            if woken is None:
                return bool(await link.run(script("unpark"), waiter, 0))
        return True

    async def _pop(
        self, link: Link, waiter: str, queues: Collection[str], end: float, answer: int | bytes
    ) -> bytes | None:
        """Return what the waiter is woken with: nothing, if it is to look for itself; None if nobody does it in time."""
        alarm = link.spawn(self._look_in_turn(link, waiter, queues, end, answer)) if answer else None
        try:
            return await link.pop(f"{self._tag}wake:{waiter}", max(end - monotonic(), _MOMENT))
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _look_in_turn(
        self, link: Link, waiter: str, queues: Collection[str], end: float, answer: int | bytes
    ) -> None:
        """Wake the waiter when the next turn comes: BLPOP would end up to 0.1 s late, with the server's next tick."""
        with suppress(StorageUnavailable):
            while isinstance(answer, bytes):
                await asyncio.sleep(float(answer))
                answer = await link.run(script("wait"), waiter, max(end - monotonic(), 0), 1, *queues)

    async def _pass_on(self, link: Link, waiter: str, queues: Collection[str]) -> None:
        with suppress(StorageUnavailable):  # then the others' next look at the queues has to do
            await link.run(script("unpark"), waiter, 1, *queues)

    # -- locks

    async def lock_job(self, job_id: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock_job`."""
        packed = pack_id(job_id)
        answer = -1 if packed is None else await self._run("lock_job", instant(now), packed, owner, ttl)
        if answer < 0:
            raise JobNotFound(job_id)
        return bool(answer)

    async def unlock_job(self, job_id: str, owner: str) -> bool:
        """See `Backend.unlock_job`."""
        packed = pack_id(job_id)
        return packed is not None and bool(await self._run("unlock_job", packed, owner))

    async def lock(self, name: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock`."""
        return bool(await self._again("lock", None, instant(now), name, owner, ttl))

    async def unlock(self, name: str, owner: str) -> bool:
        """See `Backend.unlock`."""
        return bool(await self._run("unlock", name, owner))

    # -- recurring schedules

    async def put_recurring(self, schedule: Recurring) -> None:
        """See `Backend.put_recurring`."""
        await self._again("put_recurring", None, schedule.id, *as_stored(schedule))

    async def drop_recurring(self, schedule_id: str) -> bool:
        """See `Backend.drop_recurring`."""
        return bool(await self._run("drop_recurring", schedule_id))

    async def list_recurring(self) -> list[Recurring]:
        """See `Backend.list_recurring`."""
        stored: dict[bytes, bytes] = await self._read("HGETALL", "recurring")
        return [_schedule(stored[key]) for key in sorted(stored)]

    async def due_recurring(self, limit: int, *, now: float | None = None) -> tuple[float, list[Recurring]]:
        """See `Backend.due_recurring`."""
        storage_now, *due = await self._again("due_recurring", None, instant(now), limit)
        return float(storage_now), [_schedule(packed) for packed in due]

    # -- servers

    async def put_server(self, server: ServerInfo, *, now: float | None = None) -> None:
        """See `Backend.put_server`."""
        await self._again("put_server", None, instant(now), server.server_id, msgpack.encode(server))

    async def beat_server(self, server_id: str, *, now: float | None = None) -> bool:
        """See `Backend.beat_server`."""
        return bool(await self._again("beat_server", None, instant(now), server_id))

    async def drop_server(self, server_id: str) -> bool:
        """See `Backend.drop_server`."""
        return bool(await self._run("drop_server", server_id))

    async def list_servers(self) -> list[ServerInfo]:
        """See `Backend.list_servers`."""
        answer = await self._again("list_servers", None)
        rows = (answer[at : at + 3] for at in range(0, len(answer), 3))
        servers = [
            replace(msgpack.decode(info, type=ServerInfo), started_ts=float(started), heartbeat_ts=float(beat))
            for info, started, beat in rows
        ]
        return sorted(servers, key=lambda server: server.server_id)

    # -- paused queues

    async def pause(self, queue: str) -> bool:
        """See `Backend.pause`."""
        return bool(await self._command("SADD", "paused", queue))

    async def resume(self, queue: str) -> bool:
        """See `Backend.resume`."""
        return bool(await self._run("resume", queue))

    async def paused(self) -> list[str]:
        """See `Backend.paused`."""
        return sorted(queue.decode() for queue in await self._read("SMEMBERS", "paused"))

    async def put_limits(self, queue: str, limits: QueueConfig | None) -> None:
        """See `Backend.put_limits`."""
        await self._again("put_limits", None, queue, b"" if limits is None else pack_limits(limits))

    async def limits(self) -> dict[str, QueueConfig]:
        """See `Backend.limits`."""
        stored: dict[bytes, bytes] = await self._read("HGETALL", "limits")
        return {queue.decode(): unpack_limits(packed) for queue, packed in stored.items()}

    # -- messages

    async def publish(self, channel: str, message: bytes) -> None:
        """See `Backend.publish`."""
        await (await self._link()).command("PUBLISH", f"{self._channels}{channel}", message)

    async def subscribe(self, channel: str) -> Inbox:
        """See `Backend.subscribe`."""
        link, name = await self._link(), f"{self._channels}{channel}"
        subscription = await link.subscribe(name)

        def leave(_: Inbox) -> None:
            pump.cancel()

        inbox = Inbox(leave)
        pump = link.spawn(self._pump(link, name, subscription, inbox))
        return inbox

    async def _pump(self, link: Link, name: str, subscription: Any, inbox: Inbox) -> None:
        try:
            while True:
                await _hear(subscription, inbox)
                subscription = await self._subscribed_again(link, name)
        finally:
            inbox.put(None)
            await _leave(subscription)

    async def _subscribed_again(self, link: Link, name: str) -> Any:
        while True:
            await asyncio.sleep(_FIRST_PAUSE)
            with suppress(StorageUnavailable):
                return await link.subscribe(name)
            await asyncio.sleep(_LONGEST_PAUSE)


def as_stored(schedule: Recurring) -> tuple[Argument, Argument]:
    """Return the bytes that are the same for equal schedules, and when it fires next."""
    packed = msgpack.encode(_schedule(msgpack.encode(schedule)))  # as read: a whole number may stand for a float
    fires = schedule.enabled and schedule.next_ts is not None
    return packed, instant(schedule.next_ts if fires else None)


def _schedule(packed: bytes) -> Recurring:
    return msgpack.decode(packed, type=Recurring)


async def _hear(subscription: Any, inbox: Inbox) -> None:
    """Pass messages on until the connection is lost."""
    try:
        while True:
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None:
                inbox.put(message["data"])
    except (OSError, RedisError):
        await _leave(subscription)


async def _leave(subscription: Any) -> None:
    with suppress(Exception):
        await subscription.aclose()
