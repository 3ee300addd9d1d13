"""Group commit: many awaits, few round trips, and no timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

from qml_nb.errors import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Calls a batch-first verb for many callers at once, with the shape of the verb itself.

    While a flush is under way, arrivals gather, and the next flush takes them all: a lone caller pays nothing, and
    batches grow by themselves under load. Each caller has a future of its own and the flush a task of its own, so a
    caller that is cancelled harms no other (what it sent may have been done all the same). If a batch is refused, each
    caller's items are sent again alone, so that only the caller of the bad one sees the error; the verb must
    therefore bear a repetition, as verbs with client-made ids and fencing do. Callers of different event loops may
    share it: those of one loop gather among themselves.
    """

    def __init__(self, verb: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, max_batch: int = 1_000) -> None:
        self._verb = verb
        self._max_batch = max_batch
        self._gatherings: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gathering[T, R]] = WeakKeyDictionary()

    async def __call__(self, items: Sequence[T]) -> Sequence[R]:
        """Have the items done with whatever else is waiting, and return their answers."""
        loop = asyncio.get_running_loop()
        gathering = self._gatherings.get(loop)
        if gathering is None:
            gathering = self._gatherings[loop] = _Gathering(self._verb, self._max_batch)
        return await gathering.add(items)


class _Gathering(Generic[T, R]):
    """What the callers of one event loop want done."""

    def __init__(self, verb: Callable[[Sequence[T]], Awaitable[Sequence[R]]], max_batch: int) -> None:
        self._verb, self._max_batch = verb, max_batch
        self._gathered: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def add(self, items: Sequence[T]) -> asyncio.Future[Sequence[R]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[R]] = loop.create_future()
        self._gathered.append((items, future))
        if self._flushing is None:
            self._flushing = loop.create_task(self._flush_all())
        return future

    async def _flush_all(self) -> None:
        batch = []
        try:
            while self._gathered:
                batch = self._next_batch()
                await self._flush(batch)
        except BaseException:  # the loop shuts down around us, or something cancelled the verb: let all callers go
            batch, self._gathered = batch + self._gathered, []
            for _, future in batch:
                future.cancel()
            raise
        finally:
            self._flushing = None

    def _next_batch(self) -> list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]:
        """Take callers, whole, until the next one would make the batch too large; always at least one."""
        size = many = 0
        for items, _ in self._gathered:
            size += len(items)
            if many and size > self._max_batch:
                break
            many += 1
        batch, self._gathered = self._gathered[:many], self._gathered[many:]
        return batch

    async def _flush(self, batch: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]) -> None:
        try:
            answers = await self._verb([item for items, _ in batch for item in items])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, StorageUnavailable):
                _fail(batch, error)
            else:
                for caller in batch:
                    await self._flush([caller])
            return
        start = 0
        for items, future in batch:
            end = start + len(items)
            if not future.done():
                future.set_result(answers[start:end])
            start = end


def _fail(batch: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
