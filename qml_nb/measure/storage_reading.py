"""What a storage holds at an instant: its queues, the servers that serve them, and what recurs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Struct

from qml_nb.config import QueueConfig
from qml_nb.states import ENQUEUED

if TYPE_CHECKING:
    from qml_nb.job import Job
    from qml_nb.states import JobState
    from qml_nb.storage.backend import Recurring, ServerInfo
    from qml_nb.storage.storage import Storage


class QueueReading(Struct, frozen=True):
    """A queue that holds jobs, is paused, or has bounds."""

    queue: str
    jobs: dict[str, int]
    """How many are stored in each state, exactly."""
    paused: bool
    config: QueueConfig
    next_age_seconds: float | None
    """How long the job that comes next has waited; None if none can come."""


class ServerReading(Struct, frozen=True):
    """A server in the registry. One that died stays there for some minutes: its heartbeat tells."""

    server_id: str
    server_name: str
    host: str
    pid: int
    worker_count: int
    queues: tuple[str, ...]
    """Empty for all."""
    uptime_seconds: float
    heartbeat_age_seconds: float


class ScheduleReading(Struct, frozen=True):
    """A recurring schedule."""

    schedule_id: str
    cron: str
    timezone: str
    method: str
    queue: str
    enabled: bool
    next_ts: float | None
    last_ts: float | None


class StorageReading(Struct, frozen=True):
    """All of it. `ts` is the storage's own clock, in POSIX seconds, and so are the instants it is compared with."""

    ts: float
    queues: list[QueueReading]
    servers: list[ServerReading]
    schedules: list[ScheduleReading]


async def read_storage(storage: Storage, queue: str | None = None) -> StorageReading:
    """Read a storage, or what is about one queue of it: a handful of short calls, none of which scans jobs."""
    ts, counts, paused, configs, servers, schedules = await asyncio.gather(
        clock(storage),
        storage.get_queue_counts(),
        storage.list_paused_queues(),
        storage.list_queue_configs(),
        storage.list_servers(),
        storage.list_recurring(),
    )
    names = sorted({*counts, *paused, *configs} if queue is None else {queue})
    waiting = [name for name in names if counts.get(name, {}).get(ENQUEUED) and name not in paused]
    heads = await asyncio.gather(*(storage.get_available_jobs(1, [name]) for name in waiting))
    ages = {name: max(ts - waits_since(head[0]), 0.0) for name, head in zip(waiting, heads, strict=True) if head}
    return StorageReading(
        ts,
        [
            QueueReading(
                name, _by_name(counts.get(name, {})), name in paused, configs.get(name, QueueConfig()), ages.get(name)
            )
            for name in names
        ],
        [_server(each, ts) for each in servers if queue is None or not each.queues or queue in each.queues],
        [_schedule(each) for each in schedules if queue in (None, each.queue)],
    )


async def clock(storage: Storage) -> float:
    """Return the storage's time, in POSIX seconds."""
    ts, _ = await storage.backend.due_recurring(1)
    return ts


def waits_since(job: Job) -> float:
    """Return the instant from which on the job could have run, in POSIX seconds."""
    return max(job.created_ts, job.run_ts or 0.0)


def _by_name(counts: dict[JobState, int]) -> dict[str, int]:
    return {state.value: many for state, many in counts.items()}


def _server(info: ServerInfo, ts: float) -> ServerReading:
    ages = (max(ts - info.started_ts, 0.0), max(ts - info.heartbeat_ts, 0.0))
    return ServerReading(info.server_id, info.server_name, info.host, info.pid, info.worker_count, info.queues, *ages)


def _schedule(each: Recurring) -> ScheduleReading:
    return ScheduleReading(
        each.id, each.cron, each.timezone, each.method, each.queue, each.enabled, each.next_ts, each.last_ts
    )
