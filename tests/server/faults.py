"""A storage whose backend fails when told so: real verbs, with errors or waits before them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from qml_nb import MemoryStorage, Storage, StorageUnavailable


class Faulty:
    """Stands before a storage's backend. `fail["claim"] = 3` makes the next three claims raise.

    `hold("settle")` makes a verb wait until `release`; `calls` counts what was asked.
    """

    def __init__(self, storage: Storage) -> None:
        self._backend = storage.backend
        self.fail: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        """Verbs that do their work, then raise: the answer got lost on its way."""
        self.calls: Counter[str] = Counter()
        self._held: dict[str, asyncio.Event] = {}
        storage.backend = self
        storage._settle, storage._push = self.settle, self.push

    def hold(self, verb: str) -> None:
        """Let the verb wait from now on."""
        self._held[verb] = asyncio.Event()

    def release(self, verb: str) -> None:
        """Let it go on."""
        self._held.pop(verb).set()

    def __getattr__(self, verb: str) -> Any:
        work = getattr(self._backend, verb)
        if not asyncio.iscoroutinefunction(work):
            return work

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[verb] += 1
            if verb in self._held:
                await self._held[verb].wait()
            if self.fail[verb] > 0:
                self.fail[verb] -= 1
                raise StorageUnavailable(f"{verb}: connection lost")
            answer = await work(*args, **kwargs)
            if self.after[verb] > 0:
                self.after[verb] -= 1
                raise StorageUnavailable(f"{verb}: no answer")
            return answer

        return call


def faulty_storage() -> tuple[Storage, Faulty]:
    """A storage in memory, and the way to make it fail."""
    storage = MemoryStorage()
    return storage, Faulty(storage)
