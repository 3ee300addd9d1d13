"""The event loops that this library makes for itself: uvloop's, where the extra `fast` is installed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
"""Makes a new event loop; whoever asks for it runs and closes it."""
LOOP = "asyncio"
"""Whose loops these are."""
with suppress(ImportError):
    import uvloop

    new_loop, LOOP = uvloop.new_event_loop, "uvloop"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end as `asyncio.run` does, on such a loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)
