"""The face of a storage whose calls are trips to a server: single calls that come at once share one."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qml_nb.job import Job
from qml_nb.states import ENQUEUED
from qml_nb.storage.batcher import Batcher
from qml_nb.storage.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from qml_nb.storage.backend import Backend


F = TypeVar("F", bound="Callable[..., Coroutine[Any, Any, Any]]")


def coroutine_function(method: F) -> F:
    """Mark a method whose answers may stand for coroutines: a framework that asks awaits them, and calls in the loop."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(method)
    vars(method)["_is_coroutine"] = vars(asyncio.coroutines)["_is_coroutine"]
    return method


class GatheredStorage(Storage):
    """A `Storage` that gathers single calls; those that come as a batch are one already."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._push_one = Batcher(self._push_each)
        self._settle_one = Batcher(self._settle)
        self._watch_one = Batcher(self._watch)

    @coroutine_function
    def enqueue(self, job: Job) -> Coroutine[Any, Any, bool]:
        """Store a new job; it is stored (committed) when this is answered. False: its id or its unique key was taken before.

        It is on its way at once, together with those of this event loop's other callers. What is returned is a future
        that asyncio takes for a coroutine too: `gather` makes no task of it, which is half of what the call would cost.

        Raises:
            InvalidJob: this is no job, or not a new one.
            CapacityExceeded: the storage is full; as QueueFull, its queue is.
            StorageUnavailable: the server can't be reached, or did not answer.
        """
        if job.__class__ is not Job or job.state is not ENQUEUED or asyncio._get_running_loop() is None:
            return super().enqueue(job)
        return cast("Coroutine[Any, Any, bool]", self._push_one(job))
