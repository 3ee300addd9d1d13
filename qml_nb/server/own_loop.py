"""Running an event loop for servers alone: neither their jobs nor their last tasks can end or hold it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from logging import getLogger
from typing import TYPE_CHECKING, Any

from qml_nb.loops import new_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = getLogger("qml_nb.server")

_LAST_WAIT = 0.2


def run_in_own_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, and raise what it raises."""
    loop = new_loop()
    try:
        _run_to_end(loop, loop.create_task(main))
    finally:
        with suppress(Exception):
            _close(loop)


def _run_to_end(loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
    """Run the loop until `main` is done. A job may stop the loop, or raise SystemExit in a task of its own: it goes on."""
    while not main.done():
        try:
            loop.run_until_complete(main)
        except BaseException:
            if main.done() or loop.is_closed():
                raise
            log.warning("a job stopped the event loop of its servers, which goes on", exc_info=True)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop as `asyncio.run` would, but don't wait for ever for a job that swallows every cancellation."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=_LAST_WAIT))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
