"""qml_widgets: the widgets of qml_nb. `ControlRoom` runs a pool and its load in a cell, and shows what they do."""

import logging

from qml_widgets.control_room import ControlRoom

__all__ = ["ControlRoom"]

# A warning of a background thread would be printed into whichever cell ran last. Widgets show what went wrong.
for _name in ("qml_nb", "qml_widgets"):
    logging.getLogger(_name).addHandler(logging.NullHandler())
