"""The unit of a figure, by its name."""

from __future__ import annotations

_UNITS = {"bytes": "bytes", "seconds": "s", "ts": "s", "ms": "ms", "us": "µs", "share": ""}


def unit_of(name: str) -> str:
    """Return the unit that the end of a name tells; "" for a count.

    >>> unit_of("memory_bytes"), unit_of("commands")
    ('bytes', '')
    """
    return _UNITS.get(name.rpartition("_")[2], "")
