"""`enqueue(job, connection=...)`: the job exists if and only if the caller's transaction commits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from qml_nb import Job, JobState, open_storage
from qml_nb.errors import CapacityExceeded, InvalidJob, InvalidValue, QueueFull, StorageClosed
from tests.contract.states import bring_to, claim_ids, ids, put


@asynccontextmanager
async def rolled_back(connection: Any) -> AsyncIterator[None]:
    """A transaction, or a savepoint of one, that ends in an error."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


@pytest.fixture
async def orders(direct, schema):
    """A connection of the application, with a table of its own."""
    await direct.execute(f"create schema if not exists {schema}_app; create table {schema}_app.orders (id int)")
    yield direct
    await direct.execute(f"drop schema {schema}_app cascade")


async def test_a_job_is_there_with_what_the_transaction_wrote(storage, schema, orders) -> None:
    job = Job("ship", [1])
    async with orders.transaction():
        await orders.execute(f"insert into {schema}_app.orders values (1)")
        assert await storage.enqueue(job, connection=orders) is True
        assert await storage.get(job.id) is None
    assert await storage.get(job.id) == job
    assert await claim_ids(storage) == [job.id]


async def test_a_job_of_a_transaction_that_is_rolled_back_never_was(storage, orders) -> None:
    job = Job("ship")
    async with rolled_back(orders):
        await storage.enqueue(job, connection=orders)
    assert await storage.get(job.id) is None
    assert sum((await storage.get_job_counts()).values()) == 0
    assert await storage.enqueue(job) is True


async def test_a_savepoint_takes_only_its_own_jobs_back(storage, orders) -> None:
    kept, lost = Job("kept"), Job("lost")
    async with orders.transaction():
        await storage.enqueue(kept, connection=orders)
        async with rolled_back(orders):
            await storage.enqueue(lost, connection=orders)
    assert await claim_ids(storage) == [kept.id]


async def test_workers_are_woken_at_commit_and_not_before(storage, orders) -> None:
    waiting = asyncio.create_task(storage.wait(timeout=30))
    await asyncio.sleep(0.05)
    async with orders.transaction():
        await storage.enqueue(Job("ship"), connection=orders)
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 10) is True


async def test_many_jobs_go_in_one_statement(storage, orders) -> None:
    [known] = await put(storage)
    jobs = [Job("ship", [number]) for number in range(700)]
    async with orders.transaction():
        assert await storage.enqueue_many([known, *jobs], connection=orders) == 700
        assert await storage.enqueue_many([], connection=orders) == 0
    assert sorted(await claim_ids(storage)) == sorted(ids([known, *jobs]))
    assert storage.totals.pushed == 701


async def test_without_a_transaction_the_job_is_stored_at_once(storage, orders) -> None:
    job = Job("ship")
    assert await storage.enqueue(job, connection=orders) is True
    assert await storage.enqueue(job, connection=orders) is False
    assert await storage.get(job.id) == job


async def test_a_pools_connection_and_one_with_codecs_of_its_own_will_do(storage, url) -> None:
    async def prepare(connection: Any) -> None:
        for name in ("json", "uuid"):
            await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async with asyncpg.create_pool(url, min_size=1, max_size=1, init=prepare) as pool:
        jobs = [Job("ship", ["ü", {"a": None}], metadata={"b": 2.5}) for _ in range(2)]
        async with pool.acquire() as connection, connection.transaction():
            await storage.enqueue(jobs[0], connection=connection)
            assert await storage.enqueue_many([*jobs], connection=connection) == 1
    assert await storage.backend.get(ids(jobs)) == jobs


async def test_a_storage_that_was_never_used_makes_its_tables_outside_of_the_transaction(connect, url, orders) -> None:
    storage = await connect(url)
    async with rolled_back(orders):
        await storage.enqueue(Job("ship"), connection=orders)
    assert await storage.list() == []


async def test_a_storage_that_is_full_says_so_to_the_caller(connect, url, orders) -> None:
    storage = await connect(url, max_jobs=1)
    async with rolled_back(orders):
        await storage.enqueue(Job("ship"), connection=orders)
        with pytest.raises(CapacityExceeded, match="max_jobs"):
            await storage.enqueue(Job("ship"), connection=orders)
    assert await storage.list() == []


@pytest.mark.parametrize("when_full", ["reject", "block"])
async def test_a_full_queue_says_so_to_the_caller(storage, orders, when_full) -> None:
    await storage.configure_queue("default", max_waiting=1, when_full=when_full)
    async with rolled_back(orders):
        await storage.enqueue(Job("ship"), connection=orders)
        with pytest.raises(QueueFull, match="queue 'default' holds max_waiting=1 waiting jobs, so 1 more"):
            await storage.enqueue(Job("ship"), connection=orders)
    assert await storage.list() == []


async def test_a_full_queue_drops_its_oldest_with_what_the_transaction_wrote(storage, orders) -> None:
    await storage.configure_queue("default", max_waiting=1, when_full="drop_oldest")
    [old] = await put(storage)
    async with rolled_back(orders):
        await storage.enqueue(Job("ship"), connection=orders)
    assert ids(await storage.get_available_jobs()) == [old.id]
    async with orders.transaction():
        await storage.enqueue(new := Job("ship"), connection=orders)
        assert ids(await storage.get_available_jobs()) == [old.id]
    assert ids(await storage.get_available_jobs()) == [new.id]


async def test_while_a_transaction_pushes_into_a_bounded_queue_claims_go_on(storage, orders) -> None:
    await storage.configure_queue("default", max_waiting=5, concurrency=2, rate=1_000)
    [old] = await put(storage)
    async with orders.transaction():
        await storage.enqueue(Job("ship"), connection=orders)
        async with asyncio.timeout(5):
            assert await claim_ids(storage) == [old.id]


async def test_a_key_is_taken_if_and_when_the_transaction_commits(storage, orders) -> None:
    async with rolled_back(orders):
        assert await storage.enqueue(Job("ship", unique_key="key"), connection=orders) is True
        assert await storage.enqueue(Job("ship", unique_key="key"), connection=orders) is False
        assert await storage.backend.holders(["key"]) == [None]
    async with orders.transaction():
        assert await storage.enqueue(job := Job("ship", unique_key="key"), connection=orders) is True
    assert await storage.backend.holders(["key"]) == [job.id]
    async with orders.transaction():
        assert await storage.enqueue(Job("ship", unique_key="key"), connection=orders) is False


async def test_what_is_no_connection_or_no_new_job_is_refused(storage, orders) -> None:
    wrong: Any = "postgresql://…"
    with pytest.raises(InvalidValue, match="expected connection to be an asyncpg connection, got 'postgresql"):
        await storage.enqueue(Job("ship"), connection=wrong)
    with pytest.raises(InvalidJob, match="expected job to be a Job"):
        await storage.enqueue(wrong, connection=orders)
    with pytest.raises(InvalidJob, match="expected job to be a Job"):
        await storage.enqueue_many([Job("ship"), wrong], connection=orders)


async def test_a_connection_to_another_database_is_told(storage, url, direct) -> None:
    await direct.execute("create database elsewhere")
    try:
        other = await asyncpg.connect(url.rpartition("/")[0] + "/elsewhere")
        with pytest.raises(InvalidValue, match="expected connection to lead to the storage's database"):
            await storage.enqueue(Job("ship"), connection=other)
        await other.close()
    finally:
        await direct.execute("drop database elsewhere")


async def test_what_the_callers_transaction_raises_is_the_callers(storage, orders) -> None:
    async with rolled_back(orders):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await orders.execute("select 1 / 0")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await storage.enqueue(Job("ship"), connection=orders)


async def test_a_closed_storage_refuses(url, schema, orders) -> None:
    storage: Any = await open_storage(url, schema_name=schema)
    await storage.close()
    with pytest.raises(StorageClosed):
        await storage.enqueue(Job("ship"), connection=orders)


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_transaction_that_would_not_see_what_was_settled_is_refused(storage, orders, isolation) -> None:
    """Else a job that was settled since it began would be stored a second time."""
    async with orders.transaction(isolation=isolation):
        await orders.fetch("select 1")
        job = await bring_to(storage, JobState.SUCCEEDED)
        async with rolled_back(orders):
            with pytest.raises(InvalidValue, match=f"read committed transaction, got '{isolation.replace('_', ' ')}'"):
                await storage.enqueue(Job("again", id=job.id), connection=orders)
    assert await storage.get(job.id) == job


async def test_how_the_callers_transaction_commits_is_the_callers(connect, url, orders) -> None:
    storage = await connect(url, synchronous_commit=False)
    await orders.execute("set synchronous_commit = on")
    async with orders.transaction():
        await storage.enqueue(Job("ship"), connection=orders)
        assert await orders.fetchval("show synchronous_commit") == "on"
