"""Servers on a Dask cluster, each an actor: both ends of it."""

from __future__ import annotations

import asyncio
from collections import deque
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from distributed import Client

from qml_nb.errors import InvalidValue, QMLError, RemoteError
from qml_nb.ids import new_id
from qml_nb.server.elsewhere import LOOK, Elsewhere, Plans
from qml_nb.server.hosted import Hosted, Outbox, decode_wish, encode
from qml_nb.server.own_loop import run_in_own_loop

if TYPE_CHECKING:
    from qml_nb.server.plan import Plan
    from qml_nb.server.posts import Post

SILENCE: Final = 10.0
"""Seconds without a word from the pool after which a server stops, and without one from a server until it is given up."""
_CONNECT: Final = 5.0
_POLL: Final = 0.02


# -- on a worker


class DaskServer:
    """One server, in a thread of a Dask worker. It stops when its pool is silent, and when Dask lets go of it."""

    def __init__(self, plan: bytes, wish: bytes, silence: float) -> None:
        self._life = _Life(plan, wish, silence)
        Thread(target=self._life.run, name="qml-nb dask server", daemon=True).start()

    async def ping(self, wish: bytes) -> list[bytes]:
        """Hear what the pool wishes, and return the news. Async: then Dask answers though all its threads are busy."""
        return self._life.hear(wish)

    def __del__(self) -> None:
        self._life.is_wanted = False


class _Life:
    """The part of the actor that its thread holds on to."""

    def __init__(self, plan: bytes, wish: bytes, silence: float) -> None:
        self.is_wanted = True
        self._plan, self._silence, self._heard = plan, silence, monotonic()
        self._wish = decode_wish(wish)
        self._wishes = deque([self._wish])
        self._outbox = Outbox()

    def hear(self, wish: bytes) -> list[bytes]:
        self._heard = monotonic()
        self._wishes.append(decode_wish(wish))
        return self._outbox.take()

    def run(self) -> None:
        run_in_own_loop(self._serve())

    async def _serve(self) -> None:
        hosted = Hosted(self._wish, self._outbox.put)
        serving = asyncio.create_task(hosted.run(self._plan))
        while self._has_a_pool() and not serving.done():
            while self._wishes:
                hosted.obey(self._wishes.popleft())
            await asyncio.wait([serving], timeout=LOOK)
        serving.cancel()
        await asyncio.wait([serving])

    def _has_a_pool(self) -> bool:
        return self.is_wanted and monotonic() - self._heard < self._silence


# -- in the pool


class DaskPlace:
    """A Dask cluster."""

    def __init__(self, plan: Plan, client: Any) -> None:
        if not isinstance(client, (str, Client)):
            remedy = "give client=Client(…), or the address of a scheduler"
            raise InvalidValue("client", "to be a distributed.Client with where='dask'", client, remedy)
        self._plans = Plans(plan)
        self._given: Any = client
        self._client: Any = None
        self._connecting = asyncio.Lock()

    def prepare(self) -> None:
        """See `Place`."""
        if not isinstance(self._given, str) and self._given.scheduler is None:
            raise InvalidValue("client", "to be connected", self._given, "await it, or make a new one")
        self._plans.pack()

    def server(self, worker_count: int) -> ActorServer:
        """See `Place`."""
        return ActorServer(self, self._plans, worker_count)

    async def client(self) -> Any:
        """Return a client of this loop: the one that was given belongs to another, and may be asynchronous or not."""
        async with self._connecting:
            if self._client is None or self._client.status != "running":
                await self.close()
                given = self._given
                address, security = (
                    (given, None) if isinstance(given, str) else (given.scheduler.address, given.security)
                )
                connect: Any = Client
                self._client = await connect(
                    address, security=security, timeout=_CONNECT, asynchronous=True, set_as_default=False
                )
            return self._client

    async def close(self) -> None:
        """See `Place`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


class ActorServer(Elsewhere):
    """A server on the cluster."""

    def __init__(self, place: DaskPlace, plans: Plans, worker_count: int) -> None:
        super().__init__(plans, worker_count)
        self._place = place

    async def run(self, post: Post) -> None:
        """See `Server`."""
        try:
            client = await self._place.client()
            await self._live(client, post)
        except RemoteError:
            raise
        except Exception as error:
            raise self.died(f"was lost: {type(error).__name__}: {error}", post) from error
        if not self.is_stopping:
            raise self.died("stopped, since it had heard nothing of its pool", post)

    async def _live(self, client: Any, post: Post) -> None:
        future = client.submit(
            DaskServer, self.plan, encode(self.wish()), SILENCE, actor=True, pure=False, key=f"qml-nb-server-{new_id()}"
        )
        try:
            actor = await self._actor(client, future, post)
            while actor is not None and not (self.has_stopped or self.is_late):
                async with asyncio.timeout(SILENCE):
                    news = await actor.ping(encode(self.wish()))
                for each in news:
                    self.hear(each, post)
                await self.change()
        finally:
            future.release()

    async def _actor(self, client: Any, future: Any, post: Post) -> Any:
        """Return the actor once a worker has it; None if it is to stop before that."""
        since = monotonic()
        while not future.done():
            await asyncio.sleep(_POLL)
            if self.is_stopping:
                return None
            if post.error is None and monotonic() - since > _CONNECT:
                post.note(QMLError(f"no Dask worker has taken a server of {self.name!r} yet"))
        with client.as_current():  # an actor belongs to the client that is current when it arrives
            return await future
