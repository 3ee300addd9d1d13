"""The first calls of an event loop may all come at once."""

import asyncio

from qml_nb import Job, PostgresStorage, StorageUnavailable


async def test_all_hear_that_nobody_is_there() -> None:
    async with asyncio.timeout(60):
        storage = PostgresStorage("postgresql://nobody@127.0.0.1:9/nothing", command_timeout=0.1)
        answers = await asyncio.gather(*(storage.get(Job("work").id) for _ in range(5)), return_exceptions=True)
        await storage.close()
    assert [isinstance(answer, StorageUnavailable) for answer in answers] == [True] * 5


async def test_all_share_the_connections_of_the_first(connect, url, schema) -> None:
    await connect(url)
    storage = PostgresStorage(url, schema_name=schema, max_connections=2)
    assert await asyncio.gather(*(storage.get(Job("work").id) for _ in range(20))) == [None] * 20
    assert len(storage.backend._links.opened) == 1
    await storage.close()
