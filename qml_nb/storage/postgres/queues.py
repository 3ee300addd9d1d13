"""What the PostgreSQL storage keeps of queues, and who waits for work in them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qml_nb.config import QueueConfig
from qml_nb.errors import JobNotFound
from qml_nb.storage.postgres.listener import Waiter
from qml_nb.storage.postgres.lookup import PostgresLookup
from qml_nb.storage.postgres.records import FIRST_LOOK, LONGEST_LOOK
from qml_nb.storage.postgres.rows import LIVE, is_id, job_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from qml_nb.job import Job
    from qml_nb.storage.postgres.listener import Listener


class PostgresQueues(PostgresLookup):
    """The verbs of `Backend` that are about queues and locks of jobs."""

    # -- waiting for work

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        rows = await self._again("peek", LIVE, None if queues is None else list(queues), limit)
        return [job_of(row) for row in rows]

    async def wait(self, queues: Collection[str] | None, timeout: float) -> bool:
        """See `Backend.wait`."""
        listener, waiter = (await self._link()).listener, Waiter(queues)
        await self._persist(lambda _: listener.listen())
        listener.waiters[waiter] = None
        timer = asyncio.get_running_loop().call_later(timeout, listener.let_go, waiter)
        found = False
        try:
            found = await self._found(listener, waiter)
        finally:
            timer.cancel()
            listener.waiters.pop(waiter, None)
            if not found:
                listener.hand_on(waiter)
        return found

    async def _found(self, listener: Listener, waiter: Waiter) -> bool:
        """Return once a look finds work, or the waiter is woken, or its time is up.

        It looks when it is told to, when a queue's next turn is there, and all the while unless wake-ups arrive.
        """
        pause = FIRST_LOOK
        while True:
            waiter.told.clear()
            due = await self._due(waiter.queues)
            if due == 0 or waiter.answer is not None:
                return due == 0 or bool(waiter.answer)
            if not listener.hears:
                due = pause if due is None else min(pause, due)
                pause = min(1.5 * pause, LONGEST_LOOK)
            await waiter.is_told(due)
            if waiter.answer is not None:
                return waiter.answer

    async def _due(self, queues: Collection[str] | None) -> float | None:
        """Return in how many seconds there is something to claim; None where time alone brings nothing."""
        rows = await self._again("has_work", "has_work", None if queues is None else list(queues))
        due: float | None = rows[0][0]
        return due

    # -- locks of jobs

    async def lock_job(self, job_id: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock_job`."""
        answer = await self._value("lock_job", job_id, owner, ttl, now) if is_id(job_id) else await self._no_such()
        if answer < 0:
            raise JobNotFound(job_id)
        return bool(answer)

    async def _no_such(self) -> int:
        await self._link()
        return -1

    async def unlock_job(self, job_id: str, owner: str) -> bool:
        """See `Backend.unlock_job`."""
        if not is_id(job_id):
            return await self._no_such() > 0
        return bool(await self._value("unlock_job", job_id, owner))

    # -- whole queues

    async def pause(self, queue: str) -> bool:
        """See `Backend.pause`."""
        return bool(await self._value("pause", queue))

    async def resume(self, queue: str) -> bool:
        """See `Backend.resume`."""
        return bool(await self._value("resume", queue))

    async def paused(self) -> list[str]:
        """See `Backend.paused`."""
        return [row[0] for row in await self._again("paused", "paused")]

    async def put_limits(self, queue: str, limits: QueueConfig | None) -> None:
        """See `Backend.put_limits`."""
        columns: tuple[Any, ...] = (None,) * 5
        if limits is not None:
            columns = limits.concurrency, limits.rate, limits.burst, limits.max_waiting, limits.when_full
        await self._again("put_limits", "put_limits", queue, *columns)

    async def limits(self) -> dict[str, QueueConfig]:
        """See `Backend.limits`."""
        rows = await self._again("limits", "queue, concurrency, rate, burst, max_waiting, when_full")
        return {
            queue: QueueConfig(
                concurrency=concurrency, rate=rate, burst=burst, max_waiting=max_waiting, when_full=when_full
            )
            for queue, concurrency, rate, burst, max_waiting, when_full in rows
        }
