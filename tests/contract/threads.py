"""Several threads on one store at once, each with a loop and a connection of its own."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from qml_nb.storage.storage import Storage
from tests.contract.conftest import Connect

THREADS = 4
T = TypeVar("T")


async def in_threads(connect: Connect, each: Callable[[Storage, int], Awaitable[T]]) -> list[T]:
    """Run `await each(storage, number)` in threads that start at once; returns what each returned."""
    start = Barrier(THREADS)

    async def run(number: int) -> T:
        storage = await connect()
        start.wait()
        return await each(storage, number)

    with ThreadPoolExecutor(THREADS) as threads:
        return await asyncio.to_thread(
            _turn_by_turn, lambda: list(threads.map(lambda number: asyncio.run(run(number)), range(THREADS)))
        )


def _turn_by_turn(work: Callable[[], T]) -> T:
    """A thread runs 5 ms before another gets its turn: too long to meet it in the middle of something."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        return work()
    finally:
        sys.setswitchinterval(usual)
