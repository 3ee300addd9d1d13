"""Stands for the page in tests without one: takes what widgets send, and says when each message came."""

from __future__ import annotations

import sys
import threading
import traceback
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from comm.base_comm import BaseComm

if TYPE_CHECKING:
    from collections.abc import Callable


class Page:
    """What a page would have received. `seconds` of a message are those of the monotonic clock."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, dict[str, Any]]] = []

    def open(self, **options: Any) -> BaseComm:
        """Make the comm of one widget: a stand-in for `comm.create_comm`."""
        page = self

        class Comm(BaseComm):
            def publish_msg(self, msg_type: str, data: Any = None, *_: Any, **__: Any) -> None:
                page.messages.append((monotonic(), {"type": msg_type, "comm": self.comm_id, "data": data or {}}))

        return Comm(**options)

    def updates(self, *names: str) -> list[tuple[float, dict[str, Any]]]:
        """The updates in which one of the traits has a value, with their instants."""
        data = [(at, message["data"]) for at, message in self.messages if message["type"] == "comm_msg"]
        updates = [(at, content["state"]) for at, content in data if content.get("method") == "update"]
        return [(at, state) for at, state in updates if any(state.get(name) is not None for name in names)]


def until(condition: Callable[[], Any], what: str, timeout: float = 20.0) -> None:
    """Wait until the condition holds."""
    end = monotonic() + timeout
    while not condition():
        assert monotonic() < end, f"not within {timeout:g} s: {what}"
        sleep(0.01)


def no_threads_left() -> None:
    """Return once every thread of a control room has ended; one that does not is shown where it stands."""

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "control-room" in thread.name]

    end = monotonic() + 20.0
    while left() and monotonic() < end:
        sleep(0.01)
    frames = sys._current_frames()
    assert not left(), "\n".join(
        f"{thread.name}\n{''.join(traceback.format_stack(frames.get(thread.ident or 0)))}" for thread in left()
    )
