"""Group commit: many awaits, few round trips, and no timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Generic, Never, TypeAlias, TypeVar

from msgspec import Struct

from qml_nb.errors import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
Verb: TypeAlias = "Callable[[Sequence[T]], Awaitable[Sequence[R | Later | Exception]]]"
"""Answers each item by position: what its caller gets, or is raised for it, or that it has to come again."""


class Later(Struct, frozen=True):
    """What a verb answers for an item that has to come again after so many seconds."""

    seconds: float


_FLIGHTS = 2
_WORTH_TWO = 32  # callers from which on two calls cost less than the wait of the one for the other


class Answer(asyncio.Future[R]):
    """The answer that a caller will get: a future that may stand wherever asyncio asks for a coroutine.

    So `gather` takes thousands of calls without a task for each, which is half of what they would cost, and
    `create_task` and `TaskGroup` take one all the same.
    """

    __slots__ = ()

    def send(self, _value: None, /) -> Answer[R]:
        """Go on as a coroutine would: wait for the answer, or end with it."""
        if self.done():
            raise StopIteration(self.result())
        self._asyncio_future_blocking = True
        return self

    def throw(
        self, kind: type[BaseException] | BaseException, value: object = None, _traceback: object = None
    ) -> Never:
        """End as a coroutine would that does not catch it."""
        raise value if isinstance(value, BaseException) else kind

    def close(self) -> None:
        """Do nothing: what was sent is done, though nobody waits for it."""


Coroutine.register(Answer)


class Batcher(Generic[T, R]):
    """Calls a batch-first verb once for many callers, of whom each has one item.

    While flushes are under way, two at the most, arrivals gather, and the next flush takes them all: a lone caller
    pays nothing, batches grow by themselves under load, and one batch is made while the server works on another: many
    callers who come at once when none is under way are two batches.
    Each caller has a future of its own and a flush a task of its own, so a caller that is cancelled harms no other
    (what it sent may have been done all the same). If a batch is refused, each item is sent again alone, so that only
    the caller of the bad one sees the error; the verb must therefore bear a repetition, as verbs with client-made ids
    and fencing do. Callers of different event loops may share it: those of one loop gather among themselves.
    """

    def __init__(self, verb: Verb[T, R], *, max_batch: int = 1_000) -> None:
        self._verb = verb
        self._max_batch = max_batch
        self._gatherings: dict[asyncio.AbstractEventLoop, _Gathering[T, R]] = {}

    def __call__(self, item: T) -> Answer[R]:
        """Have the item done with whatever else is waiting."""
        loop = asyncio.get_running_loop()
        try:
            return self._gatherings[loop].add(item)
        except KeyError:
            return self._gathering_of(loop).add(item)

    def _gathering_of(self, loop: asyncio.AbstractEventLoop) -> _Gathering[T, R]:
        open_ones = {known: gathering for known, gathering in self._gatherings.items() if not known.is_closed()}
        gathering = open_ones[loop] = _Gathering(loop, self._verb, self._max_batch)
        self._gatherings = open_ones
        return gathering


class _Gathering(Generic[T, R]):
    """What the callers of one event loop want done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, verb: Verb[T, R], max_batch: int) -> None:
        self._loop, self._verb, self._max_batch = loop, verb, max_batch
        # Two lines and no pairs: each pair is one more object for the garbage collector to visit.
        self._items: deque[T] = deque()
        self._futures: deque[Answer[R]] = deque()
        self._flights: set[asyncio.Task[None]] = set()  # a loop alone would let go of them
        self._flying = 0
        self._departing = False
        self._latest: asyncio.Task[None] | None = None

    def add(self, item: T, future: Answer[R] | None = None) -> Answer[R]:
        if future is None:
            future = Answer(loop=self._loop)
        self._items.append(item)
        self._futures.append(future)
        if not self._departing and self._flying < _FLIGHTS:
            self._depart()
        return future

    def _depart(self) -> None:
        self._departing = True
        self._flying += 1
        flight = self._latest = self._loop.create_task(self._flush_all())
        self._flights.add(flight)
        flight.add_done_callback(self._land)

    def _land(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._departing and flight is self._latest:  # it was cancelled before its first step
            self._departing = False
            self._let_go([])
            self._flying -= 1

    async def _flush_all(self) -> None:
        futures: list[Answer[R]] = []
        self._departing = False
        try:
            while self._items:
                items, futures = self._next_batch()
                if self._items and not self._departing and self._flying < _FLIGHTS:
                    self._depart()  # all came before this one left: more than it can take
                await self._flush(items, futures)
                await asyncio.sleep(0)  # those that were just answered may come again, and fly with this one
        except BaseException:  # the loop shuts down around us, or something cancelled the verb: let the callers go
            self._let_go(futures)
            raise
        finally:
            self._flying -= 1

    def _let_go(self, futures: list[Answer[R]]) -> None:
        """Cancel these callers, and those who wait for the next flight if there is no other one to take them."""
        if self._flying == 1:
            futures += self._futures
            self._items.clear()
            self._futures.clear()
        for future in futures:
            future.cancel()

    def _next_batch(self) -> tuple[list[T], list[Answer[R]]]:
        item, future = self._items.popleft, self._futures.popleft
        waiting = len(self._items)
        if self._flying == 1 and waiting >= _WORTH_TWO:
            waiting -= waiting // 2  # the other half is under way while the server works on this one
        many = range(min(waiting, self._max_batch))
        return [item() for _ in many], [future() for _ in many]

    async def _flush(self, items: list[T], futures: list[Answer[R]]) -> None:
        try:
            answers = await self._verb(items)
        except Exception as error:
            if len(items) == 1 or isinstance(error, StorageUnavailable):
                _fail(futures, error)
            else:
                for item, future in zip(items, futures, strict=True):
                    await self._flush([item], [future])
            return
        for item, future, answer in zip(items, futures, answers, strict=True):
            if isinstance(answer, Later):
                self._loop.call_later(answer.seconds, self._come_again, item, future)
            elif not future.done():
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _come_again(self, item: T, future: Answer[R]) -> None:
        if not future.done():
            self.add(item, future)


def alone(verb: Verb[T, R]) -> Callable[[T], Awaitable[R]]:
    """Return what a Batcher of the verb does, without waiting for company."""

    async def one(item: T) -> R:
        while True:
            answer = (await verb((item,)))[0]
            if isinstance(answer, Exception):
                raise answer
            if not isinstance(answer, Later):
                return answer
            await asyncio.sleep(answer.seconds)

    return one


def _fail(futures: list[Answer[R]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
