"""One link for each event loop, whoever is cancelled, fails or ends meanwhile."""

import asyncio
import os
import threading
import warnings
from collections.abc import Callable

import pytest

from qml_nb.errors import StorageClosed
from qml_nb.storage.links import ConnectionLost, Links, NotConnected


class Wire:
    """A link that takes a turn of the loop to open, and can be told to fail, or to take for ever."""

    made: list["Wire"]

    def __init__(self, made: list["Wire"], fails: int = 0, hangs: bool = False) -> None:
        self.state, self.fails, self.hangs = "new", len(made) < fails, hangs
        made.append(self)

    async def open(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise ConnectionLost("nobody there")
        if self.hangs:
            await asyncio.Event().wait()
        self.state = "open"

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.state = "closed"


@pytest.fixture
def made() -> list[Wire]:
    """All links that were made, in their order."""
    return []


async def test_all_who_come_while_it_opens_share_one(made) -> None:
    links = Links(lambda: Wire(made), 1.0)
    got = await asyncio.gather(*(links.get() for _ in range(10)))
    assert set(got) == {made[0]} == set(links.opened)
    assert await links.get() is made[0]
    await links.close()
    assert [wire.state for wire in made] == ["closed"]


async def test_when_it_can_not_be_opened_all_hear_it_and_the_next_tries_again(made) -> None:
    links = Links(lambda: Wire(made, fails=1), 1.0)
    heard = await asyncio.gather(*(links.get() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in heard] == [ConnectionLost] * 3
    assert (await links.get()).state == "open"
    assert [wire.state for wire in made] == ["closed", "open"]
    await links.close()


async def test_a_caller_who_is_cancelled_while_it_opens_takes_it_from_nobody(made) -> None:
    links = Links(lambda: Wire(made), 1.0)
    first, second = asyncio.create_task(links.get()), asyncio.create_task(links.get())
    await asyncio.sleep(0)
    first.cancel()
    assert await second is made[0]
    assert first.cancelled()
    await links.close()


async def test_closing_ends_one_that_is_still_opening_and_refuses_whoever_comes(made) -> None:
    links = Links(lambda: Wire(made, hangs=True), 1.0)
    waiting = asyncio.create_task(links.get())
    await asyncio.sleep(0.01)
    await asyncio.wait_for(links.close(), 10)
    assert made[0].state == "closed"
    for call in (waiting, links.get()):
        with pytest.raises(StorageClosed):
            await call


def test_each_loop_has_its_own_and_those_of_ended_loops_are_forgotten(made) -> None:
    links = Links(lambda: Wire(made), 1.0)
    for _ in range(3):
        asyncio.run(links.get())
    assert len(made) == 3
    assert len(links.opened) == 1


@pytest.mark.parametrize("ends", [True, False], ids=["the other loop ends meanwhile", "it goes on"])
async def test_closing_does_not_wait_for_a_loop_that_ends(made, ends) -> None:
    links = Links(lambda: Wire(made), 1.0)
    started, loop = threading.Event(), asyncio.new_event_loop()

    class Slow(Wire):
        async def close(self) -> None:
            if ends:
                loop.call_soon(loop.stop)
                await asyncio.sleep(3_600)
            await super().close()

    def run() -> None:
        links._make = lambda: Slow(made)  # type: ignore[assignment]
        loop.run_until_complete(links.get())
        loop.call_soon(started.set)
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(started.wait)
    await asyncio.wait_for(links.close(), 10)
    assert made[0].state == ("open" if ends else "closed")
    if not ends:
        loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(thread.join)
    await asyncio.to_thread(end, loop)


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Let what the loop still has come to its end."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def attempts(lost: int) -> tuple[list[bool], Callable[[bool], object]]:
    """An attempt that loses its connection so often, and what it was told each time."""
    told: list[bool] = []

    async def attempt(again: bool) -> str:
        told.append(again)
        if len(told) <= lost:
            raise ConnectionLost("gone")
        return "done"

    return told, attempt


async def test_what_lost_its_connection_is_tried_again_and_told_so(made) -> None:
    told, attempt = attempts(2)
    assert await Links(lambda: Wire(made), 5.0).persist(attempt) == "done"
    assert told == [False, True, True]


async def test_it_is_not_tried_for_longer_than_the_patience_lasts(made) -> None:
    told, attempt = attempts(1_000)
    with pytest.raises(ConnectionLost):
        await Links(lambda: Wire(made), 0.1).persist(attempt)
    assert 2 <= len(told) <= 5


async def test_what_was_not_sent_is_not_told_as_another_try(made) -> None:
    told: list[bool] = []

    async def attempt(again: bool) -> str:
        told.append(again)
        if len(told) < 4:
            raise [NotConnected, ConnectionLost, NotConnected][len(told) - 1]("gone")
        return "done"

    assert await Links(lambda: Wire(made), 5.0).persist(attempt) == "done"
    assert told == [False, False, True, True]


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it first")
async def test_one_that_fails_at_once_is_not_kept(made) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

    class Quick(Wire):
        async def open(self) -> None:
            if self.fails:
                raise ConnectionLost("nobody there")

        async def close(self) -> None:
            self.state = "closed"

    links = Links(lambda: Quick(made, fails=1), 1.0)
    with pytest.raises(ConnectionLost):
        await links.get()
    assert await links.get() is made[1]
    await links.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_no_loop_of_its_parent(made) -> None:
    links = Links(lambda: Wire(made), 1.0)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(links.get(), loop).result(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is what is tried
        child = os.fork()
    if child == 0:
        try:
            asyncio.run(asyncio.wait_for(links.close(), 10))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asyncio.run_coroutine_threadsafe(links.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    end(loop)
