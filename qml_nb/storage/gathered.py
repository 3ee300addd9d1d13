"""The face of a storage whose calls are trips to a server: single calls that come at once share one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from qml_nb.job import ENQUEUED, Job
from qml_nb.storage.batcher import Batcher
from qml_nb.storage.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from qml_nb.storage.backend import Backend


class GatheredStorage(Storage):
    """A `Storage` that gathers single calls; those that come as a batch are one already."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._push_one = Batcher(self._push)
        self._settle_one = Batcher(self._settle)

    def enqueue(self, job: Job) -> Coroutine[Any, Any, bool]:
        """Store a new job; it is stored (committed) when this is answered. False: a job with that id was there before.

        It is on its way at once, together with those of this event loop's other callers. What is returned is a future
        that asyncio takes for a coroutine too: `gather` makes no task of it, which is half of what the call would cost.

        Raises:
            InvalidJob: this is no job, or not a new one.
            CapacityExceeded: the storage is full.
            StorageUnavailable: the server can't be reached, or did not answer.
        """
        if job.__class__ is not Job or job.state is not ENQUEUED or asyncio._get_running_loop() is None:
            return super().enqueue(job)
        return cast("Coroutine[Any, Any, bool]", self._push_one(job))
