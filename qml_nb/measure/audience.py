"""`Audience`: hears the snapshots of servers, each once, from this process and from others."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from qml_nb.errors import StorageError
from qml_nb.server.broadcast import decode
from qml_nb.server.server import servers_here
from qml_nb.storage.backend import TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from qml_nb.server.telemetry import Snapshot
    from qml_nb.storage.storage import Storage

SILENT: Final = 3.0
"""Seconds without a snapshot after which a server is no longer part of the picture; three of its intervals, if longer."""
_FORGOTTEN: Final = 60.0
"""Seconds after which one that comes back is a new one."""
_MOST_SERVERS: Final = 10_000
_PAUSE: Final = 1.0
_ELSEWHERE: Final = object()
"""The source of what is heard from other processes."""


class _Heard(Struct, frozen=True):
    source: Any
    snapshot: Snapshot
    at: float

    @property
    def is_there(self) -> bool:
        patience = min(max(SILENT, 3 * self.snapshot.interval), _FORGOTTEN)
        return self.snapshot.slots > 0 and monotonic() - self.at < patience


class Audience:
    """Passes each snapshot of the servers that it hears on to `told`, with the one before it of the same server, if any.

    `told` is called in the thread in which the snapshot comes, one call at a time, and must return at once. Servers are
    heard through a `WorkerPool` or a `BackgroundJobServer` that is watched, or through a storage to which it listens:
    those of other processes, and none twice.
    """

    def __init__(self, told: Callable[[Snapshot, Snapshot | None], None]) -> None:
        self._told = told
        self._feeds: dict[Any, Callable[[Snapshot], None]] = {}
        self._heard: dict[str, _Heard] = {}
        self._lock = Lock()

    @property
    def servers(self) -> list[Snapshot]:
        """The newest snapshot of each server that is there, by id."""
        with self._lock:
            return [heard.snapshot for _, heard in sorted(self._heard.items()) if heard.is_there]

    def watch(self, source: Any) -> None:
        """Take the snapshots of a pool or a server."""
        if source not in self._feeds:
            feed = self._feeds[source] = partial(self._receive, source)
            source.listeners.append(feed)

    def unwatch(self, source: Any) -> None:
        """Take no more snapshots of a pool or a server, whose servers are no longer there."""
        feed = self._feeds.pop(source, None)
        if feed in source.listeners:
            source.listeners.remove(feed)
        self._forget(source)

    async def listen(self, storage: Storage) -> None:
        """Take what servers of other processes tell through the storage, until it is closed or this is cancelled."""
        try:
            while not storage.closed:
                with suppress(StorageError):
                    await self._read(storage)
                await asyncio.sleep(_PAUSE)
        finally:
            self._forget(_ELSEWHERE)

    async def _read(self, storage: Storage) -> None:
        inbox = await storage.subscribe(TELEMETRY)
        try:
            async for message in inbox:
                snapshot = decode(message)
                if snapshot is not None:
                    self._receive(_ELSEWHERE, snapshot)
        finally:
            await inbox.aclose()

    def _receive(self, source: Any, snapshot: Snapshot) -> None:
        with self._lock:
            before = self._heard.get(snapshot.server_id)
            if source is _ELSEWHERE:
                if _is_here(snapshot) or (before is not None and before.source is not source):
                    return  # it is heard directly, or could be
            elif source not in self._feeds:
                return
            if before is None and not self._has_room():
                return
            self._heard[snapshot.server_id] = _Heard(source, snapshot, monotonic())
            self._told(snapshot, None if before is None else before.snapshot)

    def _has_room(self) -> bool:
        long_ago = monotonic() - _FORGOTTEN
        self._heard = {name: heard for name, heard in self._heard.items() if heard.at > long_ago}
        return len(self._heard) < _MOST_SERVERS

    def _forget(self, source: Any) -> None:
        with self._lock:
            self._heard = {name: heard for name, heard in self._heard.items() if heard.source is not source}


def _is_here(snapshot: Snapshot) -> bool:
    return snapshot.pid == os.getpid() and snapshot.server_id in servers_here
