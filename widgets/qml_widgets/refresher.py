"""`Refresher`: one thread that draws when there is news, and never more than so often."""

from __future__ import annotations

from collections import deque
from logging import getLogger
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = getLogger("qml_widgets")

MOST: Final = 10
"""Pictures in any second. Counted over the second, not from picture to picture: a sample that comes 5 ms early is drawn
at once, and one that came late does not push back all that follow."""
_OLD: Final = 0.02
"""Seconds of waiting after which a picture is one of the past: then the next news is waited for instead. Else each picture
of a steady stream that is nearly as quick as pictures may be comes as late as the first one that had to wait."""
_PATIENCE: Final = 0.15


class Refresher:
    """Calls `draw` in a thread of its own after each `poke`, at most `MOST` times in any second.

    Pokes that come meanwhile are one. All that is sent to the page is sent from here, so that the widgets' state has
    one writer. The thread is a daemon and starts with the first poke.
    """

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw
        self._news = Event()
        self._closed = Event()
        self._drawn: deque[float] = deque([float("-inf")] * MOST, maxlen=MOST)
        self._lock = Lock()
        self._thread: Thread | None = None

    def poke(self) -> None:
        """Say that there is news. Returns at once, from any thread."""
        self._news.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed.is_set():
                    self._thread = Thread(target=self._serve, name="control-room refresher", daemon=True)
                    self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Draw no more. Waits for a picture in the making, `timeout` seconds at the most."""
        with self._lock:
            self._closed.set()
        self._news.set()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(timeout)

    def _serve(self) -> None:
        failed = False
        while True:
            self._news.wait()
            self._wait_for_its_turn()
            self._news.clear()
            if self._closed.is_set():  # asked after that, which may have cleared the news of it
                return
            self._drawn.append(monotonic())
            try:
                self._draw()
                failed = False
            except Exception:
                if not failed:
                    log.exception("the control room could not be drawn")
                failed = True

    def _wait_for_its_turn(self) -> None:
        wait = self._drawn[0] + 1.0 - monotonic()
        if wait > 0 and self._closed.wait(wait):
            return
        if wait > _OLD:
            self._news.clear()
            self._news.wait(_PATIENCE)
