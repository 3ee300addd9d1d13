"""What the memory storage keeps besides jobs and queues: locks, schedules, servers, watches and subscriptions."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_nb.storage.backend import DEAD_SERVER, WATCHED
from qml_nb.storage.inbox import Inbox

if TYPE_CHECKING:
    from threading import Lock

    from qml_nb.storage.backend import Recurring, ServerInfo


class MemoryRecords:
    """The verbs of `Backend` that are about neither jobs nor queues."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._locks: dict[str, tuple[str, float]] = {}  # name → (owner, until)
        self._recurring: dict[str, Recurring] = {}
        self._servers: dict[str, ServerInfo] = {}
        self._inboxes: dict[str, list[Inbox]] = {}
        self._watched: dict[str, float] = {}  # id → until

    # -- locks

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

    async def due_recurring(self, limit: int, *, now: float | None = None) -> tuple[float, list[Recurring]]:
        """See `Backend.due_recurring`."""
        now = time() if now is None else now
        with self._lock:
            due = [
                (schedule.next_ts, schedule.id)
                for schedule in self._recurring.values()
                if schedule.enabled and schedule.next_ts is not None and schedule.next_ts <= now
            ]
            return now, [self._recurring[schedule_id] for _, schedule_id in sorted(due)[:limit]]

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

    # -- what has run out

    def _forget(self, now: float) -> None:
        for name in [name for name, (_, until) in self._locks.items() if until <= now]:
            del self._locks[name]
        for job_id in [job_id for job_id, until in self._watched.items() if until <= now]:
            del self._watched[job_id]
        dead = now - DEAD_SERVER
        for server_id in [name for name, server in self._servers.items() if server.heartbeat_ts <= dead]:
            del self._servers[server_id]

    # -- messages

    def _tell(self, job_id: str) -> None:
        """Tell who watches a job that something became of it."""
        if self._watched.get(job_id, 0.0) > time():
            for inbox in self._inboxes.get(WATCHED, ()):
                inbox.put(job_id.encode())

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
