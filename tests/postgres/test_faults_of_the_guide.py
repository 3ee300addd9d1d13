"""The faults that the guide's own library had on PostgreSQL, by their numbers in part D of the reference: none is here.

The contract suite catches most of them:

- 10, a job that is to run again and stays locked: `test_claim`, `test_sweep`
- 11, a retry handed out before its time: `test_settle`
- 12, claims that don't say whose they are, servers that are not found again: `test_claim`, `test_servers`
- 13 and 30, an answer that comes too late and overwrites the newer run: `test_settle`, `test_move`
- 14 and 26, attempts that are not stored: `test_claim`, `test_sweep`
- 15, a requeued job that keeps its attempts, or is pruned while it waits: `test_move`, `test_sweep`
- 23, locks that a fetch ignores: `test_locks`
- 28 and 35, counts that drift, or are kept by instants: `test_counts`, `test_model`
- 29, a job promoted twice or lost: `test_sweep`
- 31, jobs of a server that died: `test_sweep`, and `tests/faults/test_kill_minus_nine.py`
- 33, a retry that shows as failed: `test_settle`
- 37, tests that skip in silence: the contract's summary counts the cases of each backend

and its neighbours here catch 7, statements that PostgreSQL refuses, and 23, names and defaults that nothing reads
(`test_schema`); 24, options that nothing reads (`test_options`, `test_reaching`); and fetches that get slower with the
backlog (`test_plans`). The rest is below.
"""

import asyncio
import os
from typing import Any

import asyncpg
import pytest

from qml_nb import Job, JobState, StorageUnavailable
from qml_nb.servers import LocalServer, LocalServers
from qml_nb.storage.postgres.names import Names
from qml_nb.storage.storage import Storage
from tests.clock import at
from tests.contract.states import ALL, bring_to, claim, put
from tests.postgres.wire import listening
from tests.verbs import exercise
from tests.versions import PROGRAMS

QML = "qml_jobs"


@pytest.fixture
async def heard(connect: Any, talkative: LocalServer) -> Storage:
    """A storage there, each statement used once on its only connection, and empty again."""
    storage: Storage = await connect(talkative.url, max_connections=1)
    await exercise(storage)
    for job in await storage.list(limit=ALL):
        await storage.delete(job.id)
    await storage.resume_queue("paused")
    return storage


# -- round trips


async def test_one_enqueue_is_one_statement(heard: Storage, talkative: LocalServer) -> None:
    """24: it was several; 23: each state change was a read and a write."""
    with listening(talkative) as asked:
        await heard.enqueue(Job("work"))
        claimed = await claim_now(heard)
        await heard.complete(claimed)

    assert len(asked) == 3


async def claim_now(storage: Storage) -> Job:
    """Claim the next job, by the server's clock."""
    job = await storage.fetch_and_lock_job("worker")
    assert job is not None
    return job


async def test_many_enqueues_at_once_share_statements(heard: Storage, talkative: LocalServer) -> None:
    """5: batches were a row of the guide, and no code."""
    with listening(talkative) as asked:
        await asyncio.gather(*(heard.enqueue(Job("work")) for _ in range(2_000)))

    assert len(asked) <= 10


async def test_a_batch_is_claimed_renewed_and_settled_in_a_statement_each(heard, talkative: LocalServer) -> None:
    """24: there was no batch claim and no batch answer; 5: a loop of single fetches."""
    await put(heard, 500)
    with listening(talkative) as asked:
        jobs = await heard.fetch_available_jobs_atomic("worker", 500)
        await heard.renew(jobs)
        await asyncio.gather(*map(heard.complete, jobs))

    assert len(jobs) == 500
    assert len(asked) <= 4


async def test_a_page_and_the_counts_take_a_statement_each(heard: Storage, talkative: LocalServer) -> None:
    """24: a page was read job by job."""
    await put(heard, 3_000)
    with listening(talkative) as asked:
        assert len(await heard.list(limit=50)) == 50
        await heard.get_job_counts()

    assert len(asked) == 2


async def test_nobody_polls_while_there_is_no_work(heard: Storage, talkative: LocalServer) -> None:
    """24: workers did nothing but poll."""
    waiting = [asyncio.create_task(heard.wait(timeout=30)) for _ in range(20)]
    await asyncio.sleep(0.3)
    with listening(talkative) as asked:
        await asyncio.sleep(0.5)

    assert asked == []
    await put(heard, 20)
    assert all(await asyncio.gather(*waiting))


# -- time


async def test_what_is_due_is_found_by_the_servers_own_clock(connect: Any, url: str) -> None:
    """27: the comparisons of instants were always false, so nothing scheduled ever ran; 11: or at once."""
    storage = await connect(url, completed_job_ttl=0.01)
    await storage.schedule(Job("work", queue="scheduled"), delay=0.01)
    await storage.schedule(Job("work", queue="later"), delay=600)
    for queue in ("retried", "lost", "done"):
        await storage.enqueue(Job("work", queue=queue))
    await storage.retry(await storage.fetch_and_lock_job("worker", ["retried"]), 0.01)
    await storage.fetch_and_lock_job("worker", ["lost"], lease=0.01)
    await storage.complete(await storage.fetch_and_lock_job("worker", ["done"]))
    await asyncio.sleep(0.02)

    swept = await storage.sweep()
    assert (swept.promoted, swept.reclaimed, swept.failed, swept.pruned) == (2, 1, 0, 1)
    assert sorted(job.queue for job in await storage.get_available_jobs()) == ["lost", "retried", "scheduled"]


async def test_a_sweep_promotes_far_more_than_a_thousand_a_tick(storage: Storage) -> None:
    """18: a thousand each 30 seconds, 33 a second."""
    await asyncio.gather(*(storage.schedule(Job("work"), at=at(0)) for _ in range(5_000)))

    assert (await storage.sweep(5_000, now=at(1))).promoted == 5_000


# -- what is stored


async def written(connection: Any, call: Any) -> int:
    """How many bytes of WAL a call makes."""
    before = await connection.fetchval("select pg_current_wal_insert_lsn()")
    await call
    return int(await connection.fetchval("select pg_current_wal_insert_lsn() - $1::pg_lsn", before))


async def test_a_big_body_is_not_written_again_while_its_job_lives(connect: Any, servers: LocalServers) -> None:
    """23: the whole job was encoded and written again with each change of state."""
    url = servers.postgres(programs=PROGRAMS, options={"autovacuum": "off", "full_page_writes": "off"})
    storage, body = await connect(url), os.urandom(500_000).hex()
    direct = await asyncpg.connect(url)
    assert await written(direct, storage.enqueue(Job("work", [body], max_retries=5))) > 500_000

    async def moves() -> None:
        await storage.retry(await claim(storage), 5, "later", now=at(0))
        await storage.sweep(now=at(5))
        job = await claim(storage)
        await storage.renew(job)
        await storage.hand_back(job)

    assert await written(direct, moves()) < 20_000
    await direct.close()


async def test_a_change_of_state_keeps_few_indexes(storage: Storage, schema: str, direct: Any) -> None:
    """23: thirteen of them were written with each change; two would be enough for none to be read through."""
    indexes = "select count(*) from pg_indexes where schemaname = $1 and tablename = $2"

    assert await direct.fetchval(indexes, schema, QML) <= 4
    assert await direct.fetchval(indexes, schema, f"{QML}_done") <= 3


async def rows(direct: Any, schema: str, *, but: tuple[str, ...] = ("version", "count")) -> dict[str, int]:
    """How many rows each table has."""
    tables = await direct.fetch("select tablename from pg_tables where schemaname = $1", schema)
    names = [row[0] for row in tables if not row[0].endswith(but)]
    return {name: await direct.fetchval(f'select count(*) from "{schema}"."{name}"') for name in names}


async def test_a_deleted_job_leaves_nothing_behind(storage: Storage, schema: str, direct: Any) -> None:
    """10: the job's lock stayed."""
    for state in JobState:
        job = await bring_to(storage, state, queue=state)
        await storage.try_acquire_job_lock(job.id, job.worker_id or "somebody")
        await storage.delete(job.id)

    left = await rows(direct, schema)
    assert len(left) > 5
    assert set(left.values()) == {0}


async def test_locks_and_messages_whose_time_is_up_do_not_pile_up(storage: Storage, schema: str, direct: Any) -> None:
    """34: the table of locks grew without bound."""
    for number in range(200):
        await storage.try_acquire_lock(f"lock {number}", "owner", 5, now=at(0))
    await storage.publish("news", b"x" * 10_000)
    await direct.execute(f"update {schema}.{QML}_message set sent_ts = sent_ts - 61")
    assert (await rows(direct, schema))[f"{QML}_lock"] == 200

    await storage.sweep(now=at(6))
    assert set((await rows(direct, schema)).values()) == {0}


# -- errors


async def test_an_error_keeps_its_source_and_is_known_by_its_code(storage: Storage, schema: str, direct: Any) -> None:
    """32: sources were dropped, and errors told apart by words that depend on the server's language."""
    await direct.execute(
        Names(
            schema, QML
        ).fill("""create or replace function qml.counts() returns table (queue text, state smallint, jobs bigint)
        language plpgsql as $$ begin raise exception using errcode = 'disk_full', message = 'kein Platz mehr'; end $$""")
    )

    with pytest.raises(
        StorageUnavailable, match="can't write: kein Platz mehr; nothing of this call was stored"
    ) as said:
        await storage.get_job_counts()
    assert isinstance(said.value.__cause__, asyncpg.DiskFullError)
