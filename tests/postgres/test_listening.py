"""Who waits for work has one connection that listens, and has it only as long as the storage is open."""

import asyncio
from contextlib import suppress

import pytest

from qml_nb import Job, PostgresStorage, StorageUnavailable
from tests.postgres.waiting import known


async def test_where_wake_ups_arrive_nobody_looks_for_work(storage, direct, schema) -> None:
    waiting = asyncio.create_task(storage.wait(timeout=1.0))
    assert await known(storage) is True
    await asyncio.sleep(0.1)
    await direct.execute(f"""insert into {schema}.qml_jobs
        (id, queue, method, priority, max_retries, created_ts, args, kwargs, metadata, state)
        values (gen_random_uuid(), 'q', 'm', 0, 0, 0, '[]', '{{}}', '{{}}', 0)""")
    assert await waiting is False
    assert await storage.wait(timeout=0) is True


async def test_a_listen_dsn_that_leads_nowhere_is_named(connect, url) -> None:
    storage = await connect(url, listen_dsn="postgresql://joe:secret@127.0.0.1:9/nowhere", command_timeout=0.1)
    with pytest.raises(StorageUnavailable, match=r"no connection to postgresql://joe:\*\*\*@127\.0\.0\.1:9/nowhere"):
        await storage.wait(timeout=0)


async def test_a_wait_that_ends_while_it_begins_to_listen_leaves_no_connection(storage, url, schema, direct) -> None:
    for end in ("cancel", "close"):
        for step in range(60):
            other = PostgresStorage(url, schema_name=schema)
            await other.backend.open()
            waiting = asyncio.create_task(other.wait(timeout=0))
            await asyncio.sleep(step * 0.000_25)
            if end == "cancel":
                waiting.cancel()
                with suppress(asyncio.CancelledError):
                    await waiting
            await other.close()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()
    async with asyncio.timeout(10):
        while await direct.fetchval("select count(*) from pg_stat_activity where query like $1", f"LISTEN%{schema}%"):
            await asyncio.sleep(0.05)


async def test_a_batch_is_one_notification_however_many_jobs_it_has(storage, schema, direct) -> None:
    heard: list[str] = []
    await direct.add_listener(f"{schema}.qml_jobs", lambda *told: heard.append(told[3]))

    await storage.enqueue_many([Job("work") for _ in range(1_000)])
    await storage.enqueue_many([Job("work") for _ in range(50)])
    await asyncio.gather(*(storage.enqueue(Job("work")) for _ in range(300)))
    await direct.execute("select 1")  # what was committed before it is heard by now

    assert [payload.split(":")[1] for payload in heard] == ["1000", "50", "150", "150"]
