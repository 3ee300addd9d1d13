"""A wire that loses answers: the server has done what it was asked, and its client never hears of it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Self
from urllib.parse import urlsplit


class Wire:
    """Stands between a storage and its server, as `url`."""

    def __init__(self, url: str) -> None:
        self._far_url, self._port = url, urlsplit(url).port
        self._tasks: set[asyncio.Task[None]] = set()
        self.to_lose = 0
        """How many of the next answers get lost, each together with its connection."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = self._far_url.replace(f":{self._port}", f":{self._server.sockets[0].getsockname()[1]}")
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._port)
        with closing(writer), closing(questions):
            ways = [
                asyncio.create_task(self._pass(reader, questions, False)),
                asyncio.create_task(self._pass(answers, writer, True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, is_answer: bool) -> None:
        while piece := await source.read(65_536):
            if is_answer and self.to_lose:
                self.to_lose -= 1
                return
            to.write(piece)
            await to.drain()
