"""The event loops that this library makes for itself: uvloop's, where the extra `fast` is installed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

LOOP = "asyncio" if uvloop is None else "uvloop"
"""Whose loops these are."""


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop; whoever asks for it runs and closes it."""
    return asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end as `asyncio.run` does, on such a loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)
