"""Messages go to everyone who is subscribed now, in order, and are not kept."""

import asyncio
from collections.abc import AsyncIterator
from threading import Thread
from typing import Any

import pytest

from qml_nb.errors import InvalidValue
from qml_nb.storage.storage import Storage

BOUND = 10
"""Seconds within which a message surely arrives."""


async def read(messages: AsyncIterator[bytes], many: int) -> list[bytes]:
    """The next messages."""
    return [await asyncio.wait_for(anext(messages), BOUND) for _ in range(many)]


async def test_messages_arrive_in_order_and_byte_equal(storage: Storage) -> None:
    messages = await storage.subscribe("news")
    sent = [b"", b"\0\xff", "ü😀".encode(), b"x" * 100_000]
    for message in sent:
        await storage.publish("news", message)

    assert await read(messages, 4) == sent


async def test_every_subscriber_gets_every_message(storage: Storage) -> None:
    readers = [await storage.subscribe("news") for _ in range(3)]
    await storage.publish("news", b"one")
    await storage.publish("news", b"two")

    assert [await read(reader, 2) for reader in readers] == [[b"one", b"two"]] * 3


async def test_a_channel_is_heard_by_its_own_subscribers_only(storage: Storage) -> None:
    news, other = await storage.subscribe("news"), await storage.subscribe("other")
    await storage.publish("news", b"for news")
    await storage.publish("other", b"for others")

    assert await read(news, 1) == [b"for news"]
    assert await read(other, 1) == [b"for others"]


async def test_what_came_before_is_not_heard(storage: Storage) -> None:
    await storage.publish("news", b"early")
    messages = await storage.subscribe("news")
    await storage.publish("news", b"late")

    assert await read(messages, 1) == [b"late"]


async def test_a_message_from_another_thread_arrives(storage: Storage, connect: Any) -> None:
    messages = await storage.subscribe("news")

    async def publish() -> None:
        await (await connect()).publish("news", b"hello")

    Thread(target=lambda: asyncio.run(publish())).start()

    assert await read(messages, 1) == [b"hello"]


async def test_a_reader_that_falls_behind_loses_the_oldest(storage: Storage) -> None:
    messages = await storage.subscribe("news")
    sent = [str(number).encode() for number in range(5_000)]
    for message in sent:
        await storage.publish("news", message)
    await storage.publish("news", b"last")
    await asyncio.sleep(0)

    heard = []
    while (message := (await read(messages, 1))[0]) != b"last":
        heard.append(message)
    assert 0 < len(heard) < 5_000
    assert heard == sent[-len(heard) :]


async def test_a_reader_may_leave_while_others_stay(storage: Storage) -> None:
    leaving, staying = await storage.subscribe("news"), await storage.subscribe("news")
    await storage.publish("news", b"one")
    assert await read(leaving, 1) == await read(staying, 1) == [b"one"]

    await leaving.aclose()
    await storage.publish("news", b"two")

    assert await read(staying, 1) == [b"two"]


async def test_messages_may_be_told_instead_of_read_up_to_the_end(storage: Storage) -> None:
    inbox = await storage.subscribe("news")
    heard: list[bytes | None] = []
    await storage.publish("news", b"one")
    inbox.hear(heard.append)
    await storage.publish("news", b"two")
    async with asyncio.timeout(BOUND):
        while len(heard) < 2:
            await asyncio.sleep(0.001)

    await storage.close()
    async with asyncio.timeout(BOUND):
        while len(heard) < 3:
            await asyncio.sleep(0.001)

    assert heard == [b"one", b"two", None]


@pytest.mark.parametrize("channel", ["", " ", "a\0b", None])
async def test_a_bad_channel_is_refused(storage: Storage, channel: Any) -> None:
    with pytest.raises(InvalidValue, match="expected channel to"):
        await storage.publish(channel, b"")
    with pytest.raises(InvalidValue, match="expected channel to"):
        await storage.subscribe(channel)
