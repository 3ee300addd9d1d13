"""What running jobs tell of how far they are, on its way to the storage."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from logging import getLogger
from threading import Lock
from typing import TYPE_CHECKING

from qml_nb.errors import StorageClosed, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qml_nb.job import Report
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.server")


class Reports:
    """The newest report of each claim, written many at a time. `put` may be called from any thread."""

    def __init__(self, storage: Storage, interval: float) -> None:
        self._storage, self._interval = storage, interval
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Report] = {}
        self._lock = Lock()
        self._there = asyncio.Event()
        self._writing = asyncio.Lock()

    def put(self, report: Report) -> None:
        """Take a report, in place of an earlier one of that claim. Returns at once."""
        with self._lock:
            is_first = not self._waiting
            self._waiting[report.claim_id] = report
        if is_first:
            with suppress(RuntimeError):  # the loop closed: the thread of a job goes on, and its server is no more
                self._loop.call_soon_threadsafe(self._there.set)

    async def write_progress(self) -> None:
        """Write what there is, once there is something, and return when more may be written.

        Raises:
            StorageUnavailable: the reports are kept.
        """
        await self._there.wait()
        self._there.clear()
        async with self._writing:
            with self._lock:
                batch, self._waiting = self._waiting, {}
            await self._send(batch)
        if batch:
            await asyncio.sleep(self._interval)

    async def write_last(self, claims: Iterable[int]) -> None:
        """Return once what there is of these claims has been written: before their jobs are settled.

        Raises:
            StorageUnavailable: the reports are kept.
        """
        if not (self._waiting or self._writing.locked()):
            return
        async with self._writing:  # what is under way would be refused after the settlement
            with self._lock:
                batch = {claim: self._waiting.pop(claim) for claim in claims if claim in self._waiting}
            await self._send(batch)

    async def _send(self, batch: dict[int, Report]) -> None:
        if not batch:
            return
        try:
            await self._storage.report(list(batch.values()))
        except (StorageUnavailable, StorageClosed):
            self._keep(batch)
            raise
        except Exception:  # nothing that jobs tell may stand in the way of their outcomes
            log.exception("the progress of %d jobs could not be written", len(batch))
        except BaseException:
            self._keep(batch)
            raise

    def _keep(self, batch: dict[int, Report]) -> None:
        with self._lock:
            self._waiting = batch | self._waiting
        self._there.set()
