"""What the tests of local servers start from. They run on real servers: without one installed they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qml_nb.servers import LocalServers


@pytest.fixture
def servers() -> Iterator[LocalServers]:
    """Servers that are stopped after the test."""
    with LocalServers() as servers:
        yield servers
