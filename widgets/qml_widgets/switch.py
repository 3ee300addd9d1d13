"""`Switch`: takes a room from one storage to another while it works, in a thread that nobody waits for."""

from __future__ import annotations

from concurrent.futures import Future
from logging import getLogger
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final

from qml_nb import QMLError, Storage
from qml_nb.config import without_password
from qml_nb.errors import InvalidValue, LocalServerFailed
from qml_widgets.local import KINDS, by_mouse, ended, starting
from qml_widgets.storages import GIVEN, MEMORY, URL, Storages, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from qml_nb import WorkerPool
    from qml_widgets.rig import Rig

log = getLogger("qml_widgets")

_LAST_JOBS: Final = 10.0
"""Seconds that a pool gets to end on the storage that was left; a server that is gone keeps it for a while."""


class Switch:
    """Opens what was wished for, and moves the rig there; if that fails, the rig stays where it is.

    The newest wish counts: an older one that is still on its way ends without effect, and its future is cancelled.
    """

    def __init__(self, rig: Rig, storages: Storages, changed: Callable[[], None]) -> None:
        self._rig, self._storages, self._changed = rig, storages, changed
        self._lock = Lock()
        self._newest = 0
        self._wish = MEMORY if storages.given is None else GIVEN
        self._where = name_of(rig.storage)
        self._progress = self._stays = self._error = ""

    def to(self, wish: str | Storage) -> Future[Storage]:
        """Move to a storage. Returns at once; the future has the storage, or why it is not in use."""
        future: Future[Storage] = Future()
        if isinstance(wish, Storage):
            self._storages.given, wish = wish, GIVEN
        if not isinstance(wish, str):
            names = ", ".join(map(repr, (MEMORY, *KINDS)))
            raise InvalidValue("storage", "to be a name, a URL or a Storage", wish, f"write {names} or a URL")
        wish = wish.strip()
        with self._lock:
            self._newest += 1
            self._progress, self._error = _progress(wish), ""
            arguments = (wish, future, self._newest)
        Thread(target=self._go, args=arguments, name="control-room storage", daemon=True).start()
        self._changed()
        return future

    def close(self) -> None:
        """Wish no more; end what was started here once the pool has ended. Returns at once."""
        with self._lock:
            self._newest += 1
        Thread(target=self._end, name="control-room end", daemon=True).start()

    @property
    def facts(self) -> dict[str, Any]:
        """What a page shows."""
        known = self._storages.choices
        return {
            "choices": known,
            "choice": self._wish if self._wish in known else URL,
            "where": "in this kernel, and gone with it" if self._where == MEMORY else self._where,
            "progress": self._progress,
            "stays": self._stays,
        }

    @property
    def troubles(self) -> list[str]:
        """Why the last wish failed, and that the storage in use is away, in words."""
        error = self._rig.monitor.error if self._rig.monitor.is_running else None
        if error is not None and self._storages.local.has_ended(self._wish):
            away = [ended(self._wish)]
        else:
            away = [f"The storage is away: {_clause(error)}. The room goes on when it is back."] if error else []
        return away + ([f"{self._error} The room stays with {self._here}."] if self._error else [])

    @property
    def _here(self) -> str:
        return f"the {self._wish}" if self._wish in KINDS else self._where

    # -- in a thread of its own

    def _go(self, wish: str, future: Future[Storage], number: int) -> None:
        try:
            storage = self._opened(wish)
        except Exception as error:
            self._fail(wish, error, future, number)
        else:
            self._arrive(wish, storage, future, number)
        self._changed()

    def _opened(self, wish: str) -> Storage:
        if wish != self._wish:
            return self._storages.open(wish)
        if wish in KINDS:
            self._storages.local.start(wish)
        elif wish == GIVEN:
            return self._storages.open(wish)
        return self._rig.storage

    def _fail(self, wish: str, error: Exception, future: Future[Storage], number: int) -> None:
        if not isinstance(error, QMLError):
            log.exception("the storage %r could not be opened", without_password(wish))
        with self._lock:
            if number != self._newest:
                future.cancel()
                return
            self._progress, self._error = "", _sentence(error)
        if future.set_running_or_notify_cancel():  # else whoever wished has given up waiting
            future.set_exception(error)

    def _arrive(self, wish: str, storage: Storage, future: Future[Storage], number: int) -> None:
        with self._lock:
            before = self._rig.storage
            pool = self._rig.move(storage) if number == self._newest else None
            if pool is not None:
                self._wish, self._where, self._progress, self._stays = wish, name_of(storage), "", ""
        if pool is None:
            future.cancel()
            self._storages.drop(storage)
            return
        if future.set_running_or_notify_cancel():
            future.set_result(storage)
        self._changed()
        if storage is not before:
            self._leave(before, pool, number)

    def _leave(self, before: Storage, pool: WorkerPool, number: int) -> None:
        pool.join(_LAST_JOBS)
        stays = self._storages.leave(before)
        with self._lock:
            if number == self._newest:
                self._stays = stays

    def _end(self) -> None:
        self._rig.pool.join(_LAST_JOBS)
        self._rig.load.join(_LAST_JOBS)
        self._storages.close()


def _progress(wish: str) -> str:
    if wish in KINDS:
        return starting(wish)
    return "" if wish in (MEMORY, GIVEN) else f"connecting to {without_password(wish)}…"


def _clause(error: Exception) -> str:
    """Return what an error says is wrong, without its advice for code."""
    return str(error).partition(";")[0].rstrip(".")


def _sentence(error: Exception) -> str:
    """Return what an error says as one line for a page. A name or an address at its start stays as it is."""
    text = by_mouse(_one_line(error)).rstrip(".") or type(error).__name__
    first = text.partition(" ")[0]
    return f"{text[0].upper() if first.isalpha() else text[0]}{text[1:]}."


def _one_line(error: Exception) -> str:
    if isinstance(error, LocalServerFailed):  # of its log, the end
        said = error.log.strip().splitlines() or ["nothing"]
        return f"the server {error.name} {error.what}; it said last: {said[-1]}"
    return " ".join(str(error).split())
