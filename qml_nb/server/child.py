"""A process with one server of a pool: what runs in it. `qml_nb.server.place_process` is the pool's end."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.msgpack import Decoder

from qml_nb.server.hosted import Hosted, Outbox, Wish, decode_wish
from qml_nb.server.lifeline import Pipe, hold_on
from qml_nb.server.own_loop import run_in_own_loop

if TYPE_CHECKING:
    from socket import socket

    from qml_nb.server.hosted import News

LAST_SECOND = 1.0
"""Seconds that a server gets to hand its jobs back when its pool is gone."""


class Setup(Struct, frozen=True):
    """What the process is told first."""

    path: list[str]
    """The pool's `sys.path`, by which it knows the modules of its tasks."""
    plan: bytes
    wish: Wish


_decode_setup = Decoder(Setup).decode


class _Talk:
    """Both directions of the pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self._outbox = Outbox()
        self._there = asyncio.Event()
        self._is_over = False

    def tell(self, news: News) -> None:
        self._outbox.put(news)
        self._there.set()

    def end(self) -> None:
        """Let `send` end when it has sent what there is."""
        self._is_over = True
        self._there.set()

    async def send(self) -> None:
        with suppress(ConnectionError):  # the pool is gone, as `listen` sees too
            is_over = False
            while not is_over:
                await self._there.wait()
                self._there.clear()
                is_over = self._is_over
                for news in self._outbox.take():
                    await self.pipe.write(news)

    async def listen(self, hosted: Hosted, serving: asyncio.Task[None]) -> None:
        while (wish := await self.pipe.read()) is not None:
            hosted.obey(decode_wish(wish))
        serving.cancel()


async def _serve(end: socket) -> None:
    talk = _Talk(Pipe(end))
    first = await talk.pipe.read()
    if first is None:
        return
    setup = _decode_setup(first)
    sys.path[:] = setup.path
    hosted = Hosted(setup.wish, talk.tell)
    serving = asyncio.create_task(hosted.run(setup.plan))
    sending, listening = asyncio.create_task(talk.send()), asyncio.create_task(talk.listen(hosted, serving))
    await asyncio.wait([serving])
    talk.end()
    await asyncio.wait([sending])
    listening.cancel()
    await asyncio.wait([listening])


def main() -> None:
    """Be a server of the pool at the other end of the pipe."""
    with hold_on(LAST_SECOND) as end:
        run_in_own_loop(_serve(end))
