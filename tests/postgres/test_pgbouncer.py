"""Behind PgBouncer in transaction mode everything works; wake-ups need the server's own address, and their lack is told."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from qml_nb import BackgroundJobServer, Job, JobState, ServerConfig, StorageUnavailable
from qml_nb.load import synthetic_tasks
from qml_nb.storage.storage import Storage
from tests.contract.states import claim, ids, put
from tests.places import certificate
from tests.postgres.pooler import pgbouncer
from tests.postgres.waiting import known, waits
from tests.verbs import exercise

LONG = 30.0
"""Seconds that no wait in these tests takes."""


Start = Callable[..., str]
"""Starts one more pooler in front of the server of `url`, and returns its address; takes PgBouncer's settings."""


@pytest.fixture
def start_pooler(url: str) -> Iterator[Start]:
    """Starts poolers that end after the test's storages."""
    with ExitStack() as started:
        yield lambda *pem, **settings: started.enter_context(pgbouncer(url, *pem, **settings))


@pytest.fixture
def pooled(start_pooler: Start) -> str:
    """The address of the server of `url` by way of a pooler."""
    return start_pooler()


@pytest.fixture
async def behind(pooled: str, connect: Any) -> Storage:
    """A storage behind the pooler."""
    return await connect(pooled, statement_cache_size=0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What storages have warned of so far."""
    return [record.message for record in caplog.records if record.name == "qml_nb.storage"]


async def woken(task: asyncio.Task[bool]) -> bool:
    """Whether a waiting task comes back with True, within a bound that only a lost wake-up reaches."""
    return await asyncio.wait_for(task, 10)


# -- jobs


async def test_jobs_come_in_are_claimed_and_end(behind) -> None:
    await behind.enqueue(Job("work"))
    assert await behind.enqueue_many(jobs := [Job("work", [number]) for number in range(2_500)]) == 2_500
    first = await claim(behind)
    assert await behind.renew([first]) == [True]
    assert await behind.complete(first, {"answer": 42})
    assert await behind.fail(await claim(behind), "it broke")
    assert await behind.retry(await claim(behind), 60.0)
    assert await behind.cancel(jobs[-1].id)
    assert (await behind.get(first.id)).result == {"answer": 42}
    assert {state: many for state, many in (await behind.get_job_counts()).items() if many} == {
        JobState.SUCCEEDED: 1,
        JobState.FAILED: 1,
        JobState.AWAITING_RETRY: 1,
        JobState.DELETED: 1,
        JobState.ENQUEUED: 2_497,
    }
    assert await behind.try_acquire_lock("nightly", "me")
    assert not await behind.try_acquire_lock("nightly", "you")


@pytest.mark.parametrize("listens", [False, True], ids=["polling", "listening"])
async def test_a_server_drains_a_queue(pooled, connect, url, listens) -> None:
    storage = await connect(pooled, statement_cache_size=0, listen_dsn=url if listens else None)
    async with BackgroundJobServer(
        storage, synthetic_tasks(), ServerConfig(worker_count=5, polling_interval=10 * LONG)
    ):
        assert await known(storage) is listens
        await storage.enqueue_many(Job("noop") for _ in range(300))
        await storage.drained(timeout=LONG)
    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 300


async def test_every_verb_works_where_messages_come_from_the_server_itself(pooled, connect, url) -> None:
    await exercise(await connect(pooled, statement_cache_size=0, listen_dsn=url))


async def test_where_nothing_is_heard_results_and_turns_are_looked_for(behind) -> None:
    await behind.configure_queue("default", rate=20.0)
    jobs = await put(behind, 2)
    result = asyncio.create_task(behind.result(jobs[1].id, timeout=LONG))
    for _ in jobs:
        assert await behind.wait(timeout=LONG)
        [job] = await behind.fetch_available_jobs_atomic("worker")
        await behind.complete(job, job.args)
    assert await result == [1]


async def test_many_who_come_first_at_once_make_the_schema_once(pooled, connect, schema, direct) -> None:
    storages = await asyncio.gather(*(connect(pooled, statement_cache_size=0) for _ in range(4)))
    await asyncio.gather(*(storage.enqueue(Job("work")) for storage in storages))
    assert await direct.fetch(f"select version from {schema}.qml_jobs_version") == [(1,)]
    assert (await storages[0].get_job_counts())[JobState.ENQUEUED] == 4


async def test_a_schema_that_somebody_makes_meanwhile_is_seen(start_pooler, connect, schema, direct) -> None:
    """A connection that has long been in use knows that there was none, and is told otherwise only when it asks."""
    pooled = start_pooler(default_pool_size="1")
    await connect(pooled, statement_cache_size=0, schema_name=f"{schema}_other")
    async with direct.transaction():
        await direct.execute(f"select pg_advisory_xact_lock(hashtextextended('{schema}.qml_jobs', 0))")
        late = asyncio.create_task(connect(pooled, statement_cache_size=0))
        await waits(direct)
        await direct.execute(f"create schema {schema}")
    assert await (await late).enqueue(Job("work"))


async def test_two_storages_with_many_tasks_run_each_job_once(pooled, connect) -> None:
    storages = [await connect(pooled, statement_cache_size=0) for _ in range(2)]
    jobs, run = [Job("work", [number]) for number in range(600)], Counter[str]()

    async def work(storage: Storage, name: str) -> None:
        while claimed := await storage.fetch_available_jobs_atomic(name, 7):
            run.update(ids(claimed))
            assert all(await asyncio.gather(*(storage.complete(job) for job in claimed)))

    async def produce_and_work(storage: Storage, part: list[Job], name: str) -> None:
        await asyncio.gather(*(storage.enqueue(job) for job in part))
        await work(storage, name)

    parts = [produce_and_work(storages[at % 2], jobs[at::20], f"worker-{at}") for at in range(20)]
    await asyncio.gather(*parts)
    await work(storages[0], "last")  # a claim that met others may come back empty though some are left
    assert run == Counter(ids(jobs))
    assert (await storages[1].get_job_counts())[JobState.SUCCEEDED] == 600


# -- wake-ups and messages


async def test_without_listen_dsn_waiting_finds_work_by_looking_and_that_is_told_once(behind, caplog) -> None:
    assert behind.backend.hears is None
    for queue in ("before it is known", "after"):
        waiting = asyncio.create_task(behind.wait([queue], LONG))
        elsewhere = asyncio.create_task(asyncio.to_thread(behind.sync.wait, [queue], LONG))
        await asyncio.sleep(0.05)
        await put(behind, queue=queue)
        assert await woken(waiting) is True
        assert await woken(elsewhere) is True
        assert await known(behind) is False
    while None in [link.listener.hears for link in behind.backend._links.opened]:
        await asyncio.sleep(0.01)
    assert await behind.wait(["nothing"], 0.1) is False
    [warning] = warnings(caplog)
    assert "127.0.0.1" in warning
    assert "work is found by looking for it every 0.02 to 0.25 s" in warning
    assert "set listen_dsn to the URL of the server itself" in warning


async def test_with_listen_dsn_waiting_is_woken(pooled, connect, url, caplog) -> None:
    storage = await connect(pooled, statement_cache_size=0, listen_dsn=url)
    waiting = asyncio.create_task(storage.wait(timeout=LONG))
    assert await known(storage) is True
    await put(storage)
    assert await woken(waiting) is True
    assert warnings(caplog) == []


async def test_without_listen_dsn_who_subscribes_is_told_that_nothing_will_be_heard(behind, caplog) -> None:
    messages = await behind.subscribe("news")
    await behind.publish("news", b"hello")
    [why, warning] = warnings(caplog)
    assert "subscribers hear no message" in why
    assert "who subscribed to 'news' will hear nothing; set listen_dsn to the URL of the server itself" in warning
    await messages.aclose()


async def test_with_listen_dsn_messages_arrive(pooled, connect, url, caplog) -> None:
    storage = await connect(pooled, statement_cache_size=0, listen_dsn=url)
    messages = await storage.subscribe("news")
    for message in (sent := [b"short", b"x" * 100_000]):
        await storage.publish("news", message)
    assert [await asyncio.wait_for(anext(messages), 10) for _ in sent] == sent
    assert warnings(caplog) == []


async def test_who_requires_encryption_does_not_listen_without(start_pooler, connect, url, tmp_path: Path) -> None:
    encrypted = start_pooler(certificate(tmp_path))
    storage = await connect(encrypted, statement_cache_size=0, listen_dsn=url, require_ssl=True, command_timeout=0.1)
    with pytest.raises(StorageUnavailable, match="SSL"):
        await storage.wait(timeout=0)


# -- settings


async def deallocate(stranger: Any, _names: list[str]) -> None:
    await stranger.execute("deallocate all")


async def replace(stranger: Any, names: list[str]) -> None:
    await stranger.execute("deallocate all;" + ";".join(f'prepare "{name}" as select 1' for name in names))


async def come_first(stranger: Any, names: list[str]) -> None:
    numbers = [int(name.strip("_").rpartition("_")[2], 16) for name in names]
    await replace(stranger, [f"__asyncpg_stmt_{max(numbers) + ahead:x}__" for ahead in range(100)])


MIX_UPS = [(deallocate, "does not exist"), (replace, "requires 0"), (come_first, "already exists")]


@pytest.mark.parametrize(("mix_up", "said"), MIX_UPS)
async def test_a_mixed_up_prepared_statement_says_what_to_set(start_pooler, connect, mix_up, said) -> None:
    """As it happens where one connection of the server is now one client's, now another's."""
    pooled = start_pooler(default_pool_size="1")
    storage = await connect(pooled, max_connections=1)
    await storage.get(Job("work").id)
    stranger = await asyncpg.connect(pooled, statement_cache_size=0)
    await mix_up(stranger, [name for [name] in await stranger.fetch("select name from pg_prepared_statements")])
    await stranger.close()
    with pytest.raises(StorageUnavailable, match=rf"{said}; .* set statement_cache_size=0$"):
        await (storage.list_paused_queues() if mix_up is come_first else storage.get(Job("work").id))


@pytest.mark.parametrize("way", ["direct", "pooled"])
async def test_a_setting_counts_for_ones_own_commits_only(pooled, connect, url, schema, direct, way) -> None:
    where = url if way == "direct" else pooled
    storage = await connect(where, statement_cache_size=0, synchronous_commit=True, max_connections=1)
    plain = await connect(where, statement_cache_size=0)
    await direct.execute(f"""
        create table {schema}.commits (job uuid, synchronous text);
        create function {schema}.note() returns trigger language plpgsql as $$ begin
          insert into {schema}.commits values (new.id, current_setting('synchronous_commit')); return null;
        end $$;
        create constraint trigger note after insert on {schema}.qml_jobs deferrable initially deferred
          for each row execute function {schema}.note()""")
    [mine] = await put(storage)
    others = [job for _ in range(10) for job in await put(plain)]
    said = dict(await direct.fetch(f"select job::text, synchronous from {schema}.commits"))
    assert said == {mine.id: "on"} | {job.id: said[others[0].id] for job in others}
    assert said[others[0].id] == "off"
