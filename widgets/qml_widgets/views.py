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
