"""`Panel` and `Readout`: the knobs, and the numbers. Facts go to the page as one trait, commands come back as messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import traitlets
from anywidget import AnyWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STATIC: Final = Path(__file__).parent / "static"


class View(AnyWidget):
    """A widget whose page paints `facts` and never changes them: it sends commands, and Python decides what they do."""

    facts = traitlets.Dict().tag(sync=True)

    def __init__(self, on_command: Callable[[dict[str, Any]], None], facts: Mapping[str, Any]) -> None:
        self._on_command = on_command
        super().__init__(facts=dict(facts))
        _answer_where_the_page_asks(self.comm)
        self.on_msg(self._receive)

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        if isinstance(content, dict):
            self._on_command(content)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Panel(View):
    """Start and Stop, the knobs of pool and load, and what went wrong."""

    _esm = _STATIC / "panel.js"
    _css = _STATIC / "room.css"


class Readout(View):
    """The numbers of now: tiles, a sentence for those who can't see the curves, and a table beside the curves."""

    _esm = _STATIC / "readout.js"


def _answer_where_the_page_asks(comm: Any) -> None:
    """Let a page's message go to the shell that the page names: one that is free while a cell runs.

    ipykernel 7.4 sends it to the shell from which the widget last spoke instead, be that the one of the running cell,
    and a Stop would be heard only after it. Other versions have no such method, and nothing changes for them.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, named: named
