"""Connections that cost little: commands are packed in C, and what the socket takes at once is not waited for.

redis-py leaves only the parsing to hiredis, and packing is a third of a push; on Python 3.11 it makes a task of each send.

A command that meets a connection which another caller's error has just closed fails as any lost connection does.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from hiredis import pack_command
from redis.exceptions import ConnectionError as RedisConnectionError


@cache
def packing(connection_class: Any) -> Any:
    """Return a kind of redis-py connection that has its commands packed by hiredis."""

    async def send(self: Any, command: Any, **options: Any) -> None:
        try:
            if self.is_connected and isinstance(command, list):
                self._writer.writelines(command)
                if not self._writer.transport.get_write_buffer_size():
                    return
                command = []
            await connection_class.send_packed_command(self, command, **options)
        except (AttributeError, TypeError) as error:  # what redis-py and asyncio meet where a connection just closed
            raise RedisConnectionError("the connection closed while a command was sent") from error

    def pack(self: Any, *arguments: Any) -> Any:
        if " " in arguments[0]:  # as in "CLUSTER SLOTS": redis-py splits such names
            return connection_class.pack_command(self, *arguments)
        return [pack_command(arguments)]

    methods = {"pack_command": pack, "send_packed_command": send}
    return type(f"Packing{connection_class.__name__}", (connection_class,), methods)
