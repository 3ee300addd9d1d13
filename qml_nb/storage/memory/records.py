"""What the memory storage keeps besides jobs: locks, schedules, servers, paused queues and subscriptions."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_nb.errors import JobNotFound
from qml_nb.job import ENQUEUED, PROCESSING
from qml_nb.storage.inbox import Inbox
from qml_nb.storage.memory.index import JobIndex
from qml_nb.storage.memory.lanes import Queue
from qml_nb.storage.memory.waiters import Waiters

if TYPE_CHECKING:
    from threading import Lock

    from qml_nb.job import Job
    from qml_nb.storage.backend import Recurring, ServerInfo


class MemoryRecords:
    """The verbs of `Backend` that are about records other than jobs."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._jobs = JobIndex()
        self._running: dict[str, Job] = {}
        self._queues: dict[str, Queue] = {}
        self._waiters = Waiters()
        self._job_locks: dict[str, tuple[str, float]] = {}  # id → (owner, until)
        self._locks: dict[str, tuple[str, float]] = {}
        self._recurring: dict[str, Recurring] = {}
        self._servers: dict[str, ServerInfo] = {}
        self._inboxes: dict[str, list[Inbox]] = {}

    def _get(self, job_id: str) -> Job | None:
        """Look a job up as it stands now."""
        return self._running.get(job_id) or self._jobs.get(job_id)

    # -- locks

    async def lock_job(self, job_id: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock_job`."""
        now = time() if now is None else now
        with self._lock:
            job = self._get(job_id)
            if job is None:
                raise JobNotFound(job_id)
            leased = job.state is PROCESSING and job.worker_id != owner
            if leased or self._is_locked(job_id, None, now):
                return False
            self._job_locks[job_id] = (owner, now + ttl)
            return True

    async def unlock_job(self, job_id: str, owner: str) -> bool:
        """See `Backend.unlock_job`."""
        with self._lock:
            if self._job_locks.get(job_id, (None,))[0] != owner:
                return False
            del self._job_locks[job_id]
            job = self._get(job_id)
            if job is not None and job.state is ENQUEUED:
                self._waiters.wake(job.queue, 1)
            return True

    async def lock(self, name: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """See `Backend.lock`."""
        now = time() if now is None else now
        with self._lock:
            holder, until = self._locks.get(name, (owner, now))
            if holder != owner and until > now:
                return False
            self._locks[name] = (owner, now + ttl)
            return True

    async def unlock(self, name: str, owner: str) -> bool:
        """See `Backend.unlock`."""
        with self._lock:
            if self._locks.get(name, (None,))[0] != owner:
                return False
            del self._locks[name]
            return True

    def _is_locked(self, job_id: str, by_others_than: str | None, now: float) -> bool:
        owner, until = self._job_locks.get(job_id, (by_others_than, now))
        return until > now and owner != by_others_than

    def _drop_stale_locks(self, now: float) -> None:
        for locks in (self._job_locks, self._locks):
            for name in [name for name, (_, until) in locks.items() if until <= now]:
                del locks[name]

    # -- recurring schedules

    async def put_recurring(self, schedule: Recurring) -> None:
        """See `Backend.put_recurring`."""
        with self._lock:
            self._recurring[schedule.id] = schedule

    async def drop_recurring(self, schedule_id: str) -> bool:
        """See `Backend.drop_recurring`."""
        with self._lock:
            return self._recurring.pop(schedule_id, None) is not None

    async def list_recurring(self) -> list[Recurring]:
        """See `Backend.list_recurring`."""
        with self._lock:
            return [self._recurring[schedule_id] for schedule_id in sorted(self._recurring)]

    # -- servers

    async def put_server(self, server: ServerInfo, *, now: float | None = None) -> None:
        """See `Backend.put_server`."""
        now = time() if now is None else now
        with self._lock:
            self._servers[server.server_id] = replace(server, started_ts=now, heartbeat_ts=now)

    async def beat_server(self, server_id: str, *, now: float | None = None) -> bool:
        """See `Backend.beat_server`."""
        now = time() if now is None else now
        with self._lock:
            server = self._servers.get(server_id)
            if server is not None:
                self._servers[server_id] = replace(server, heartbeat_ts=now)
            return server is not None

    async def drop_server(self, server_id: str) -> bool:
        """See `Backend.drop_server`."""
        with self._lock:
            return self._servers.pop(server_id, None) is not None

    async def list_servers(self) -> list[ServerInfo]:
        """See `Backend.list_servers`."""
        with self._lock:
            return [self._servers[server_id] for server_id in sorted(self._servers)]

    # -- paused queues

    async def pause(self, queue: str) -> bool:
        """See `Backend.pause`."""
        with self._lock:
            found = self._queues.setdefault(queue, Queue(queue, self._jobs))
            was, found.paused = found.paused, True
            return not was

    async def resume(self, queue: str) -> bool:
        """See `Backend.resume`."""
        with self._lock:
            found = self._queues.get(queue)
            if found is None or not found.paused:
                return False
            found.paused = False
            self._waiters.wake(queue, found.waiting)
            return True

    async def paused(self) -> list[str]:
        """See `Backend.paused`."""
        with self._lock:
            return sorted(queue.name for queue in self._queues.values() if queue.paused)

    # -- messages

    async def publish(self, channel: str, message: bytes) -> None:
        """See `Backend.publish`."""
        with self._lock:
            inboxes = list(self._inboxes.get(channel, ()))
        for inbox in inboxes:
            inbox.put(message)

    async def subscribe(self, channel: str) -> Inbox:
        """See `Backend.subscribe`."""

        def leave(inbox: Inbox) -> None:
            with self._lock:
                self._inboxes[channel].remove(inbox)
                if not self._inboxes[channel]:
                    del self._inboxes[channel]

        inbox = Inbox(leave)
        with self._lock:
            self._inboxes.setdefault(channel, []).append(inbox)
        return inbox

    def _end_subscriptions(self) -> None:
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put(None)
