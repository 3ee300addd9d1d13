"""Whether a queue is well, for a probe that wants a yes or a no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qml_nb.ids import first_id_at
from qml_nb.job import JobFilter
from qml_nb.measure.storage_reading import clock, waits_since
from qml_nb.server.server import HEARTBEAT_INTERVAL
from qml_nb.states import ENQUEUED

if TYPE_CHECKING:
    from qml_nb.job import Job
    from qml_nb.storage.backend import ServerInfo
    from qml_nb.storage.storage import Storage

LIVE_WITHIN: Final = 3 * HEARTBEAT_INTERVAL
"""Seconds since its last heartbeat for which a server counts as live."""
_PAGE = 1_000


async def complaint(
    storage: Storage,
    *,
    queue: str | None = None,
    server: str | None = None,
    max_waiting: int | None = None,
    max_age: float | None = None,
) -> str | None:
    """Say in one line why the queue is not well; None if it is.

    It is if a server is live, and no more than `max_waiting` jobs wait, none of them for more than `max_age` seconds.
    Jobs that are scheduled, or await a retry, don't wait until they are due; those of paused queues have no age.

    Args:
        storage: what is looked at.
        queue: the queue that counts; None for all of them.
        server: the name, or the host, of the server that must be live; None for any that serves the queue.
        max_waiting: see above; None for no bound.
        max_age: see above; None for no bound.
    """
    ts = await clock(storage)
    servers = [each for each in await storage.list_servers() if _serves(each, queue)]
    return (
        _no_server(servers, server, ts)
        or (max_waiting is not None and await _too_many(storage, queue, max_waiting))
        or (max_age is not None and await _too_old(storage, queue, max_age, ts))
        or None
    )


def _serves(server: ServerInfo, queue: str | None) -> bool:
    return queue is None or not server.queues or queue in server.queues


def _no_server(servers: list[ServerInfo], wanted: str | None, ts: float) -> str | None:
    which = "no server" if wanted is None else f"no server {wanted!r}"
    named = [each for each in servers if wanted in (None, each.server_name, each.host)]
    if not named:
        others = ", ".join(sorted({f"{each.server_name!r} on {each.host!r}" for each in servers}))
        return f"{which} is registered{f', only {others}' if others else ''}"
    age = ts - max(each.heartbeat_ts for each in named)
    return f"{which} is live: the last heartbeat was {age:.0f} s ago" if age >= LIVE_WITHIN else None


async def _too_many(storage: Storage, queue: str | None, bound: int) -> str | None:
    waiting = (await storage.get_job_counts(queue))[ENQUEUED]
    where = "" if queue is None else f" in queue {queue!r}"
    return f"{waiting} jobs wait{where}, more than {bound}" if waiting > bound else None


async def _too_old(storage: Storage, queue: str | None, bound: float, ts: float) -> str | None:
    """Look among the jobs made before the bound: ids tell when, so that is a page or two at the most."""
    paused, after = set(await storage.list_paused_queues()), first_id_at(ts - bound)
    while page := await storage.backend.find(JobFilter(ENQUEUED, queue), _PAGE, after):
        late = [job for job in page if job.queue not in paused and ts - waits_since(job) > bound]
        if late:
            return _waits(min(late, key=waits_since), ts, bound)
        after = page[-1].id
    return None


def _waits(job: Job, ts: float, bound: float) -> str:
    waited = ts - waits_since(job)
    return f"job {job.id} ({job.method!r} in queue {job.queue!r}) has waited {waited:.1f} s, more than {bound:g}"
