"""Tables and functions are made once, are recognised, and belong to one install."""

import asyncio
from typing import Any

import asyncpg
import pytest

from qml_nb import Job, StorageError, open_storage
from qml_nb.errors import SchemaMismatch
from qml_nb.states import JobState
from qml_nb.storage.postgres import schema as schema_module
from tests.contract.states import ids, put


async def test_many_who_come_first_at_once_make_it_once(connect, url, schema, direct) -> None:
    storages = await asyncio.gather(*(connect(url, max_connections=2) for _ in range(8)))
    for storage in storages:
        await storage.enqueue(Job("work"))
    assert await direct.fetch(f"select version from {schema}.qml_jobs_version") == [(1,)]
    assert (await storages[0].get_job_counts())[JobState.ENQUEUED] == 8


async def test_migrating_again_changes_nothing(storage) -> None:
    jobs = await put(storage, 3)
    await storage.migrate()
    assert ids(await storage.list()) == ids(jobs[::-1])


async def test_without_auto_migrate_nothing_is_made(connect, url, schema, direct) -> None:
    with pytest.raises(
        SchemaMismatch,
        match=r"has no schema yet, .* run `qml-nb migrate URL` or `await storage.migrate\(\)`, or set auto_migrate",
    ):
        await connect(url, auto_migrate=False)
    assert await direct.fetchval("select to_regnamespace($1) is null", schema)
    assert issubclass(SchemaMismatch, StorageError)


async def test_without_auto_migrate_what_was_made_is_used(connect, url) -> None:
    await (await connect(url)).enqueue(Job("work"))
    assert len(await (await connect(url, auto_migrate=False)).list()) == 1


@pytest.mark.parametrize("auto_migrate", [True, False])
async def test_what_a_newer_version_made_is_left_alone(connect, url, schema, direct, auto_migrate) -> None:
    await connect(url)
    await direct.execute(f"update {schema}.qml_jobs_version set version = 7")
    with pytest.raises(
        SchemaMismatch, match="has schema version 7, made by a newer qml_nb; this one reads 1: update it"
    ):
        await connect(url, auto_migrate=auto_migrate)


async def test_a_new_version_replaces_the_functions_while_jobs_run(connect, url, schema, direct, monkeypatch) -> None:
    """Also one that takes other arguments now, which would else stay beside the new one."""
    storage = await connect(url)
    stale = f"create function {schema}.qml_jobs_push(ids uuid[]) returns int language sql as 'select 1'"
    await direct.execute(stale)
    ended = asyncio.Event()

    async def work(queue: str) -> int:
        done = 0
        while not ended.is_set():
            await storage.enqueue(Job("work", queue=queue))
            [job] = await storage.claim("w", [queue], 1, 30.0)
            done += await storage.complete(job)
        return done

    working = [asyncio.create_task(work(queue)) for queue in "abcde"]
    for version in range(2, 12):  # many, since a call has to meet the instant at which one of them commits
        monkeypatch.setattr(schema_module, "VERSION", version)
        monkeypatch.setitem(schema_module.MIGRATIONS, version, "clock")
        newer = await connect(url)
        await newer.migrate()
    ended.set()
    done = sum(await asyncio.gather(*working))
    assert await direct.fetchval(f"select max(version) from {schema}.qml_jobs_version") == 11
    named = "select count(*) from pg_proc where pronamespace = $1::text::regnamespace and proname = 'qml_jobs_push'"
    assert await direct.fetchval(named, schema) == 1
    assert {state: many for state, many in (await storage.get_job_counts()).items() if many} == {
        JobState.SUCCEEDED: done
    }


async def test_an_older_schema_is_recognised_and_a_migration_that_fails_leaves_it_as_it_was(
    connect, url, schema, direct, monkeypatch
) -> None:
    storage = await connect(url)
    jobs = await put(storage, 3)
    monkeypatch.setattr(schema_module, "VERSION", 2)
    monkeypatch.setitem(schema_module.MIGRATIONS, 2, "schema")  # makes what is there
    with pytest.raises(SchemaMismatch, match="has schema version 1, and this qml_nb reads 2; run `qml-nb migrate URL`"):
        await connect(url, auto_migrate=False)
    with pytest.raises(StorageError, match="already exists"):
        await connect(url)
    assert await direct.fetch(f"select version from {schema}.qml_jobs_version") == [(1,)]
    assert ids(await storage.claim("w", None, 10, 30.0)) == ids(jobs)


@pytest.mark.parametrize("other", [{"schema_name": "elsewhere"}, {"table_name": "other_jobs"}])
async def test_two_installs_share_a_database_and_nothing_else(connect, url, direct, other) -> None:
    mine, theirs = await connect(url), await connect(url, **other)
    try:
        messages = await theirs.subscribe("news")
        waiting = asyncio.create_task(theirs.wait(timeout=30))
        await asyncio.sleep(0.05)
        await mine.enqueue(Job("work"))
        await mine.pause_queue("default")
        await mine.try_acquire_lock("nightly", "me")
        await mine.publish("news", b"for mine")
        await theirs.publish("news", b"for theirs")
        assert await anext(messages) == b"for theirs"
        assert not waiting.done()
        assert await theirs.list() == await theirs.list_paused_queues() == []
        assert sum((await theirs.get_job_counts()).values()) == 0
        assert await theirs.try_acquire_lock("nightly", "them")
        await theirs.enqueue(Job("work"))
        assert await waiting is True
    finally:
        await theirs.close()
        if "schema_name" in other:
            await direct.execute("drop schema elsewhere cascade")


async def test_the_longest_names_work(connect, url, direct) -> None:
    names = {"schema_name": "s" * 40, "table_name": "t" * 40}
    storage = await connect(url, **names)
    try:
        waiting = asyncio.create_task(storage.wait(timeout=30))
        await asyncio.sleep(0.05)
        await storage.enqueue(Job("work"))
        assert await waiting is True
    finally:
        await storage.close()
        await direct.execute(f"drop schema {'s' * 40} cascade")


ROW = "id, queue, method, priority, max_retries, created_ts, args, kwargs, metadata, state"
VALUES = "gen_random_uuid(), 'q', 'm', 0, 0, 0, '[]', '{}', '{}'"


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("", "4"),
        ("", "7"),
        ("", "1"),
        (", lease_ts", "0, 1"),
        (", lease_ts, worker_id, started_ts", "1, 9, 'w', 1"),
        ("", "2"),
        ("", "3"),
        (", attempt", "0, -1"),
        (", lock_owner", "0, 'me'"),
    ],
)
async def test_a_row_that_the_states_do_not_allow_is_refused(storage, schema, direct, columns, values) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await direct.execute(f"insert into {schema}.qml_jobs ({ROW}{columns}) values ({VALUES}, {values})")


@pytest.mark.parametrize(
    ("columns", "values"), [("", "0, 1"), ("", "7, 1"), (", lease_ts", "4, 1, 1"), ("", "4, null")]
)
async def test_a_finished_row_that_the_states_do_not_allow_is_refused(storage, schema, direct, columns, values) -> None:
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await direct.execute(
            f"insert into {schema}.qml_jobs_done ({ROW}, finished_ts{columns}) values ({VALUES}, {values})"
        )


async def test_a_role_that_may_not_make_tables_is_told(url, direct, schema) -> None:
    await direct.execute("create role poor login")
    try:
        poor = url.replace("postgres@", "poor@")
        with pytest.raises(StorageError, match="permission denied for database postgres"):
            await open_storage(poor, schema_name=schema)
    finally:
        await direct.execute("drop role poor")


@pytest.mark.parametrize(
    ("query", "arguments"),
    [("select qml.wake($1, $2)", ("ü" * 5_000, 1)), ("select pg_notify('{channel}', $1)", ("nonsense",))],
    ids=["a long queue name", "what somebody else sends"],
)
async def test_whatever_is_heard_does_no_harm(storage, schema, direct, query, arguments) -> None:
    waiting = asyncio.create_task(storage.wait(timeout=30))
    await asyncio.sleep(0.05)
    query = query.replace("qml.wake", f"{schema}.qml_jobs_wake").replace("{channel}", f"{schema}.qml_jobs")
    await direct.execute(query, *arguments)
    await storage.enqueue(Job("work"))
    assert await waiting is True


async def test_hostile_text_is_text(storage) -> None:
    texts = ["'; drop table qml_jobs; --", "$1", "%s", "{}", '"', "\\", "ü😀"]
    jobs = [Job(text, [text], {text: text}, queue=text, job_type=text, metadata={text: text}) for text in texts]
    await storage.enqueue_many(jobs)
    for job, text in zip(jobs, texts, strict=True):
        found: Any = await storage.fetch_and_lock_job(text, queues=[text])
        assert (found.id, found.args, found.kwargs, found.worker_id) == (job.id, [text], {text: text}, text)
        await storage.fail(found, text)
        assert (await storage.list(queue=text, method=text))[0].error == text
