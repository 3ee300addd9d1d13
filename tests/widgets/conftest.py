"""What the tests of widgets start from: a page without a browser, and rooms that are closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comm
import pytest

from qml_nb.servers import LocalServer, LocalServers
from qml_widgets import ControlRoom
from tests.widgets.page import Page, no_threads_left

Rooms = Callable[..., ControlRoom]
"""Makes a control room; takes what `ControlRoom` takes."""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page that shows every widget of the test."""
    page = Page()
    monkeypatch.setattr(comm, "create_comm", page.open)
    return page


@pytest.fixture
def new_room(page: Page) -> Iterator[Rooms]:
    """Makes control rooms; after the test they are closed, and pool and load have ended."""
    rooms: list[ControlRoom] = []

    def make(*args: Any, **options: Any) -> ControlRoom:
        rooms.append(ControlRoom(*args, **options))
        return rooms[-1]

    yield make
    for room in rooms:
        room.close()
        assert room.pool.join(10)
        assert room.load.join(10)
    no_threads_left()


@pytest.fixture
def room(new_room: Rooms) -> ControlRoom:
    """A control room at its defaults: 300 sleeps of 10 ms a second, 4 slots."""
    return new_room()


@pytest.fixture(params=["local Redis", "local PostgreSQL"])
def local(request: pytest.FixtureRequest) -> str:
    """What the menu calls a server of the room's own."""
    return str(request.param)


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """A server of the test's own, to be killed and frozen; durable, so that its tables outlive that."""
    with LocalServers() as servers:
        yield servers.server(getattr(servers, request.param)(durable=True))
