"""Runs what users see of servers on every backend, through real servers on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from qml_nb import Storage
from tests.contract.conftest import BACKENDS


@pytest.fixture(params=BACKENDS)
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """An empty storage of the test's own, on each backend; `serve` and `registry` are those of all tests of servers."""
    async with await BACKENDS[request.param]()() as storage:
        yield storage
