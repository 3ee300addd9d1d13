"""What tests in several folders start from."""

import signal
from collections.abc import Iterator

import pytest

from qml_nb.servers import LocalServer, LocalServers


def pytest_configure() -> None:
    """Let Ctrl-C interrupt the programs of the tests, also where a shell started all this in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A Redis of the test's own, to be killed and frozen."""
    with LocalServers() as servers:
        yield servers.server(servers.redis())
