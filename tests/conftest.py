"""What tests in several folders start from."""

from collections.abc import Iterator

import pytest

from qml_nb.servers import LocalServer, LocalServers


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A Redis of the test's own, to be killed and frozen."""
    with LocalServers() as servers:
        yield servers.server(servers.redis())
