"""What a server was asked, as the server itself tells it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from qml_nb.servers import LocalServer

_ASKED = re.compile(r" LOG:  (?:execute [^:]*|statement): (.*)")


@contextmanager
def listening(server: LocalServer) -> Iterator[list[str]]:
    """Collect what a server is asked in the block, in a list that is filled after it. It writes all statements down."""
    start, asked = server.log.stat().st_size, list[str]()
    yield asked
    asked += _ASKED.findall(server.log.read_bytes()[start:].decode())
