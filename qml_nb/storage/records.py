"""The part of the face that is about records other than jobs: locks, schedules, servers, queues and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qml_nb.config import QueueConfig
from qml_nb.validate import check_name, check_seconds, posix

if TYPE_CHECKING:
    from datetime import datetime

    from qml_nb.job import Job
    from qml_nb.storage.backend import Backend, Recurring, ServerInfo
    from qml_nb.storage.inbox import Inbox


class Records:
    """Methods of `Storage`."""

    backend: Backend

    # -- locks

    async def try_acquire_job_lock(
        self, job_id: str, worker: str, timeout: float = 30.0, *, now: datetime | None = None
    ) -> bool:
        """Lock one job for `timeout` seconds against claims by other workers. Not re-entrant.

        False: its lock is held, or another worker's lease. It must be released, and is when the time is up.

        Raises:
            JobNotFound: no job with that id is stored.
        """
        worker, timeout = check_name("worker", worker), check_seconds("timeout", timeout)
        return await self.backend.lock_job(job_id, worker, timeout, now=posix(now))

    async def release_job_lock(self, job_id: str, worker: str) -> bool:
        """Release a job's lock. False: `worker` does not hold it."""
        return await self.backend.unlock_job(job_id, check_name("worker", worker))

    async def try_acquire_lock(
        self, name: str, owner: str, timeout: float = 30.0, *, now: datetime | None = None
    ) -> bool:
        """Take a named lock for `timeout` seconds, or let one's own run on for that long. False: another holds it."""
        name, owner = check_name("name", name), check_name("owner", owner)
        return await self.backend.lock(name, owner, check_seconds("timeout", timeout), now=posix(now))

    async def release_lock(self, name: str, owner: str) -> bool:
        """Release a named lock. False: `owner` does not hold it."""
        return await self.backend.unlock(check_name("name", name), check_name("owner", owner))

    # -- recurring schedules

    async def upsert_recurring(self, schedule: Recurring) -> None:
        """Store a recurring schedule, in place of one with the same id."""
        await self.backend.put_recurring(schedule)

    async def remove_recurring(self, schedule_id: str) -> bool:
        """Remove a recurring schedule. False: no such one."""
        return await self.backend.drop_recurring(schedule_id)

    async def list_recurring(self) -> list[Recurring]:
        """Return all recurring schedules, by id."""
        return await self.backend.list_recurring()

    # -- servers

    async def register_server(self, server: ServerInfo, *, now: datetime | None = None) -> None:
        """Enter a server that starts."""
        await self.backend.put_server(server, now=posix(now))

    async def heartbeat(self, server_id: str, *, now: datetime | None = None) -> bool:
        """Note that a server lives. False: it is not registered (any more)."""
        return await self.backend.beat_server(server_id, now=posix(now))

    async def deregister(self, server_id: str) -> bool:
        """Remove a server that stops. False: it was not there."""
        return await self.backend.drop_server(server_id)

    async def list_servers(self) -> list[ServerInfo]:
        """Return all servers, by id."""
        return await self.backend.list_servers()

    # -- queues

    async def pause_queue(self, queue: str) -> bool:
        """Hand out nothing more from the queue; what runs runs on, and enqueuing goes on. False: it was paused."""
        return await self.backend.pause(check_name("queue", queue))

    async def resume_queue(self, queue: str) -> bool:
        """Hand out from the queue again. False: it was not paused."""
        return await self.backend.resume(check_name("queue", queue))

    async def list_paused_queues(self) -> list[str]:
        """Return the paused queues, by name."""
        return await self.backend.paused()

    async def configure_queue(self, queue: str, config: QueueConfig | None = None, **options: Any) -> QueueConfig:
        """Set what a queue may do, over all servers and callers, from the next call on: see `QueueConfig`.

        What is not given is as the defaults of `QueueConfig` have it: `configure_queue("email")` lifts every bound.

        >>> import asyncio
        >>> from qml_nb import MemoryStorage
        >>> asyncio.run(MemoryStorage().configure_queue("email", rate=10, concurrency=2))
        QueueConfig(concurrency=2, rate=10.0, burst=1, max_waiting=None, when_full='reject')
        """
        queue, config = check_name("queue", queue), QueueConfig.of(config, options)
        await self.backend.put_limits(queue, None if config == QueueConfig() else config)
        return config

    async def get_queue_config(self, queue: str) -> QueueConfig:
        """Return what a queue may do."""
        return (await self.backend.limits()).get(check_name("queue", queue)) or QueueConfig()

    async def list_queue_configs(self) -> dict[str, QueueConfig]:
        """Return what queues may do, by name, where that was set."""
        return dict(sorted((await self.backend.limits()).items()))

    async def get_unique(self, key: str, *, now: datetime | None = None) -> Job | None:
        """Return the job by which a unique key is taken; None: it is free, or that job was pruned."""
        [holder] = await self.backend.holders([check_name("key", key)], now=posix(now))
        return None if holder is None else (await self.backend.get([holder]))[0]

    # -- messages

    async def publish(self, channel: str, message: bytes) -> None:
        """Give a message to everyone who is subscribed to the channel now. Nothing is kept."""
        await self.backend.publish(check_name("channel", channel), message)

    async def subscribe(self, channel: str) -> Inbox:
        """Return the channel's messages from when this returns on. A reader that falls behind loses the oldest."""
        return await self.backend.subscribe(check_name("channel", channel))
