"""Connections that pack commands in C: redis-py leaves only the parsing to hiredis, and packing is a third of a push."""

from __future__ import annotations

from functools import cache
from typing import Any

from hiredis import pack_command


@cache
def packing(connection_class: Any) -> Any:
    """Return a kind of redis-py connection that has its commands packed by hiredis."""

    def pack(self: Any, *arguments: Any) -> Any:
        if " " in arguments[0]:  # as in "CLUSTER SLOTS": redis-py splits such names
            return connection_class.pack_command(self, *arguments)
        return [pack_command(arguments)]

    return type(f"Packing{connection_class.__name__}", (connection_class,), {"pack_command": pack})
