"""`qml_nb.testing` for code without `await`: the same names and arguments, run on the toolkit's loop as `storage.sync` is."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qml_nb import testing
from qml_nb.storage.sync import run_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qml_nb.job import Job
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.storage.storage import Storage
    from qml_nb.testing import Ended

__all__ = ["assert_enqueued", "assert_not_enqueued", "drain", "enqueued", "inline", "perform"]


def drain(storage: Storage, registry: WorkerRegistry, *queues: str, **options: Any) -> Ended:
    """See `qml_nb.testing.drain`."""
    ended: Ended = run_sync(testing.drain(storage, registry, *queues, **options))
    return ended


@contextmanager
def inline(storage: Storage, registry: WorkerRegistry, **options: Any) -> Iterator[Ended]:
    """See `qml_nb.testing.inline`; here it is `storage.sync.enqueue` that returns when its job has ended."""
    block = testing.inline(storage, registry, **options)
    ended: Ended = run_sync(_entering(block))
    try:
        yield ended
    finally:
        run_sync(_leaving(block, *sys.exc_info()))


def perform(registry: WorkerRegistry, job: Job, **options: Any) -> Any:
    """See `qml_nb.testing.perform`."""
    return run_sync(testing.perform(registry, job, **options))


def enqueued(storage: Storage, method: str | None = None, **wanted: Any) -> list[Job]:
    """See `qml_nb.testing.enqueued`."""
    found: list[Job] = run_sync(testing.enqueued(storage, method, **wanted))
    return found


def assert_enqueued(storage: Storage, method: str | None = None, **wanted: Any) -> list[Job]:
    """See `qml_nb.testing.assert_enqueued`."""
    found: list[Job] = run_sync(testing.assert_enqueued(storage, method, **wanted))
    return found


def assert_not_enqueued(storage: Storage, method: str | None = None, **wanted: Any) -> None:
    """See `qml_nb.testing.assert_not_enqueued`."""
    run_sync(testing.assert_not_enqueued(storage, method, **wanted))


async def _entering(block: Any) -> Any:
    return await block.__aenter__()


async def _leaving(block: Any, *error: Any) -> None:
    await block.__aexit__(*error)
