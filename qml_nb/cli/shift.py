"""A pool at work in a process of its own: from its start until a signal, or an error, ends it."""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from logging import getLogger
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from qml_nb.errors import QMLError, StorageUnavailable
from qml_nb.server.slots import GRACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qml_nb.config import ServerConfig
    from qml_nb.server.pool import WorkerPool
    from qml_nb.server.telemetry import Snapshot

log = getLogger("qml_nb.work")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK = 0.2
"""Seconds between two looks at the pool; on Windows also until Ctrl-C is heard."""
_ABORT = 5.0
"""Seconds that the pool gets for an abort, before the process ends without it."""
_NEWS = 0.5
"""Seconds until the pool has told what it does, now that nothing more is claimed."""
_ENDED, _LATE = 0, -1
"""What is told in place of a signal: the pool has ended, or the time is up."""


class Shift:
    """Runs a pool until SIGTERM or SIGINT. These are heard beside it, whatever its jobs do to their event loop."""

    def __init__(self, pool: WorkerPool, place: str, *, wait: bool) -> None:
        self._pool, self._place, self._wait = pool, place, wait
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._shots: dict[str, Snapshot] = {}
        self._cut_short = False
        pool.listeners.append(self._hear)

    def run(self) -> int:
        """Work, and return the exit status: 0, or 128 and the number of the signal if jobs were cut short.

        Raises:
            QMLError: what kept the pool from working.
        """
        with _heard(self._signals):
            self._pool.start()
            told = self._told()
            if told == _ENDED:
                return self._failed()
            told = self._stop(told)
        self._sum_up()
        return 128 + told if self._cut_short or self._sum("cut_short") else 0

    def _hear(self, shot: Snapshot) -> None:
        """Take a snapshot, in the pool's thread."""
        if self._pool.state == "starting":  # it may still turn out that this server can't be
            return
        if shot.server_id not in self._shots:
            pool, tasks = self._pool, ", ".join(self._pool.registry)
            what = f"{pool.worker_count} slots, {shown_queues(pool.config)} of {self._place}, tasks {tasks}"
            log.info("%s works: %s", shot.server_id, what)
        self._shots[shot.server_id] = shot

    def _sum(self, counter: str) -> int:
        return sum(getattr(shot, counter) for shot in list(self._shots.values()))

    def _told(self, limit: float = inf) -> int:
        """Return the next signal, or `_ENDED`, or `_LATE` after `limit` seconds."""
        end = monotonic() + limit
        while monotonic() < end:
            with suppress(Empty):
                return self._signals.get(timeout=_LOOK)
            if self._pool.join(0):
                return _ENDED
            if self._is_away and not self._wait and self._pool.error is not None:
                raise self._pool.error
        return _LATE

    @property
    def _is_away(self) -> bool:
        """Whether it has not started yet, for want of its storage."""
        return self._pool.state == "starting" and isinstance(self._pool.error, StorageUnavailable)

    def _stop(self, told: int) -> int:
        """Stop gracefully; at once if that takes too long, or the second signal comes. Returns the last signal."""
        grace = self._pool.config.shutdown_timeout
        away = self._is_away
        self._pool.stop()
        again = self._told(_NEWS)
        if again == _LATE and not away:
            log.info("stopping: %d jobs run, and have %g s to end; again to cancel them", self._sum("busy"), grace)
            again = self._told(3 * max(grace, GRACE) + _ABORT)
        if again == _ENDED or away:
            return told
        log.warning("cancelling %d jobs: they go back to the queue", self._sum("busy"))
        self._pool.stop(at_once=True)
        last = self._told(_ABORT)
        self._cut_short = last != _ENDED
        return next(each for each in (last, again, told) if each > 0)

    def _failed(self) -> int:
        error = self._pool.error
        if isinstance(error, QMLError):
            raise error
        return 1

    def _sum_up(self) -> None:
        counters = ("succeeded", "failed", "retried", "handed_back", "cut_short")
        counts = ", ".join(f"{self._sum(each):,} {each.replace('_', ' ')}" for each in counters)
        if self._cut_short:
            log.error("ended before its jobs: others get them when their leases run out; %s", counts)
        else:
            log.info("stopped: %s", counts)


@contextmanager
def _heard(signals: SimpleQueue[int]) -> Iterator[None]:
    """Have signals put there, and not end the process."""
    before = {each: signal.signal(each, lambda number, _: signals.put(number)) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def shown_queues(config: ServerConfig) -> str:
    """Say which queues a server serves, and in which order.

    >>> from qml_nb import ServerConfig
    >>> shown_queues(ServerConfig(queues={"critical": 6, "bulk": 1}))
    'queues critical=6, bulk=1'
    >>> (
    ...     shown_queues(ServerConfig(queues=["critical", "bulk"], queue_order="strict")),
    ...     shown_queues(ServerConfig(queues=[])),
    ... )
    ('queues critical, then bulk', 'all queues')
    """
    if not config.queues:
        return "all queues"
    weights = config.weights or {}
    names = [f"{name}={weights[name]:g}" if name in weights else name for name in config.queues]
    return f"queue{'s' * (len(names) > 1)} {(', then ' if config.queue_order == 'strict' else ', ').join(names)}"
