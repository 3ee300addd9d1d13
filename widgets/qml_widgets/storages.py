"""`Storages`: the storages that a room may use, and those that it makes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final

from qml_nb import MemoryStorage, open_storage
from qml_nb.config import without_password
from qml_nb.errors import StorageClosed
from qml_nb.states import LIVE
from qml_nb.storage.sync import run_sync
from qml_widgets.local import KINDS, Local

if TYPE_CHECKING:
    from qml_nb import Storage

MEMORY: Final = "memory"
GIVEN: Final = "from code"
URL: Final = "URL"
_PATIENCE: Final = 2.0
"""Seconds that a storage which is left gets to say what it holds, and to close."""


class Storages:
    """Opens storages by what the menu calls them, or by URL, and closes those that it opened; never one that was given.

    Memory is kept for as long as the room is there, and so are the local servers: who chooses one again finds the jobs
    that were left. All methods may take a while, and may be called from any thread but the toolkit's own.
    """

    def __init__(self, given: Storage | None) -> None:
        self.given = given
        self.local = Local()
        self._memories: dict[str, Storage] = {}
        self._opened: set[Storage] = set()
        self._lock = Lock()

    @property
    def choices(self) -> list[str]:
        """What there is to choose from, any URL apart."""
        return [*([GIVEN] if self.given is not None else []), MEMORY, *KINDS]

    def memory(self, url: str = "memory://") -> Storage:
        """Return the room's own memory; a URL may give it a bound."""
        with self._lock:
            if url not in self._memories:
                self._memories[url] = MemoryStorage() if url == "memory://" else run_sync(open_storage(url))
            return self._memories[url]

    def open(self, wish: str) -> Storage:
        """Return the storage that was meant, once it can be used.

        Raises:
            QMLError: it can't, and why.
        """
        if wish == GIVEN and self.given is not None:
            return self.given
        if wish == MEMORY or wish.startswith("memory:"):
            return self.memory("memory://" if wish == MEMORY else wish)
        storage: Storage = run_sync(open_storage(self.local.start(wish) if wish in KINDS else wish))
        with self._lock:
            self._opened.add(storage)
        return storage

    def leave(self, storage: Storage) -> str:
        """Let go of a storage, and say what stays there; "" for nothing."""
        name = name_of(storage)
        choice = self.local.choice_of(name)
        is_kept = bool(choice) or storage is self.given or storage in self._memories.values()
        said = _what_stays(storage, f"the {choice}" if choice else name, is_kept=is_kept)
        self.drop(storage)
        return said

    def drop(self, storage: Storage) -> None:
        """Close a storage, if it was opened here and is no memory."""
        with self._lock:
            is_ours = storage in self._opened
            self._opened.discard(storage)
        if is_ours:
            with suppress(Exception):  # a server that is gone needs no goodbye
                run_sync(asyncio.wait_for(storage.close(), _PATIENCE))

    def close(self) -> None:
        """Close all that was opened here, and end the local servers. What memory holds stays for who has a hold of it."""
        with self._lock:
            opened = list(self._opened)
        for storage in opened:
            self.drop(storage)
        self.local.close()


def name_of(storage: Storage) -> str:
    """Return where a storage has its jobs, in words, and without a password.

    >>> name_of(MemoryStorage())
    'memory'
    """
    if storage.closed:
        return "a closed storage"
    config = getattr(storage.backend, "config", None)
    url = getattr(config, "url", None) or getattr(config, "database_url", None)
    return without_password(url) if isinstance(url, str) else storage.backend.name


def _what_stays(storage: Storage, name: str, *, is_kept: bool) -> str:
    try:
        counts = run_sync(asyncio.wait_for(storage.get_job_counts(), _PATIENCE))
    except StorageClosed:
        return ""
    except Exception:
        return f"{name} does not answer; what it holds stays there."
    many = sum(counts[state] for state in LIVE)
    if not many:
        return ""
    again = "; choose it again to go on there" if is_kept else ""
    return f"{many:,} unfinished {'job stays' if many == 1 else 'jobs stay'} in {name}{again}."
