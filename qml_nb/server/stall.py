"""A job that never gives the event loop back stops its whole server. Only another thread can end it."""

from __future__ import annotations

import asyncio
from threading import Event, Thread, get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING

from qml_nb.server.run import NS
from qml_nb.server.slots import GRACE
from qml_nb.server.threads import interrupt

if TYPE_CHECKING:
    from qml_nb.server.run import Run
    from qml_nb.server.slots import Slots

_INTERVAL = 0.1


class StallGuard:
    """Interrupts the job that holds the loop, once it is past its deadline and the loop has not turned since.

    The loop says `alive` all the time. While it does, timeouts are its own business and the guard only watches.
    """

    def __init__(self, slots: Slots, name: str) -> None:
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._loop_thread = get_ident()
        self._turned = perf_counter_ns()
        self._stopped = Event()
        Thread(target=self._watch, name=f"{name} stall guard", daemon=True).start()

    def alive(self) -> None:
        """Note that the loop turned."""
        self._turned = perf_counter_ns()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _watch(self) -> None:
        while not (self._stopped.wait(_INTERVAL) or self._loop.is_closed()):
            if perf_counter_ns() - self._turned < GRACE * NS:
                continue
            run = self._holder()
            if run is not None and run.deadline + GRACE * NS < perf_counter_ns() and not run.ended:
                run.mark("timeout")
                interrupt(self._loop_thread)
                self._turned = perf_counter_ns()  # once a grace period, not once a look

    def _holder(self) -> Run | None:
        entering = self._slots.entering
        if entering is not None:
            return entering
        task = asyncio.current_task(self._loop)
        return next((run for run in list(self._slots.running) if run.task is task), None) if task is not None else None
