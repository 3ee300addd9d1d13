"""What a server was asked, as the server itself tells it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from qml_nb.servers.process import LocalServer
from tests.servers.asking import ask


class Heard:
    """The commands since the recording began: those that came over a connection, and those of scripts."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.by_scripts: list[str] = []


@contextmanager
def listening(server: LocalServer) -> Iterator[Heard]:
    """Record what a server is asked; what was heard is complete after the block."""
    heard, end = Heard(), uuid4().hex
    with socket.create_connection(("127.0.0.1", server.port), 30) as monitor, monitor.makefile("rb") as lines:
        monitor.sendall(b"MONITOR\r\n")
        assert lines.readline() == b"+OK\r\n"
        yield heard
        ask(server.url, "ECHO", end)
        for line in map(bytes.decode, lines):
            if end in line:
                break
            if '"CLIENT"' not in line and '"HELLO"' not in line:  # each new connection introduces itself
                (heard.by_scripts if " lua] " in line else heard.sent).append(line)
