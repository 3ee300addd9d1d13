"""What a closed storage does with every call."""

from __future__ import annotations

from typing import Any

from qml_nb.errors import StorageClosed


class Closed:
    """Stands in for the backend of a closed storage: every verb of it says so."""

    name = "closed"
    round_trip = False

    def __getattr__(self, verb: str) -> Any:
        raise StorageClosed(verb)


async def refuse(_items: object) -> Any:
    """Stand in for a verb."""
    raise StorageClosed
