"""Transactions that meet: a resend and a settlement, many writers of the same jobs, statements that a lock holds up."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Any

import asyncpg
import pytest

from qml_nb import BackgroundJobServer, Job, JobState, StorageUnavailable
from qml_nb.errors import CapacityExceeded
from qml_nb.job import Outcome, Report
from qml_nb.load import synthetic_tasks
from qml_nb.servers import LocalServer
from qml_nb.states import LIVE
from qml_nb.storage.postgres.names import Names
from qml_nb.storage.storage import Storage
from tests.contract.states import bring_to, claim, put
from tests.postgres.waiting import waits


async def test_a_resend_that_meets_the_settlement_of_its_job_stores_it_once(storage, schema, direct, url) -> None:
    [job] = await put(storage)
    claimed = await claim(storage)
    watcher = await asyncpg.connect(url)
    transaction = direct.transaction()
    await transaction.start()
    names = Names(schema, "qml_jobs")
    settle = names.fill(
        "select qml.settle($1, $2, array[4]::smallint[], array[null]::json[], array[null]::text[], $3, 0, 9, 9)"
    )
    await direct.fetch(settle, [claimed.id], [claimed.claim_id], [0.0])
    resend = asyncio.create_task(storage.enqueue_many([job, Job("another")]))
    await waits(watcher)
    await transaction.commit()
    await watcher.close()

    assert await resend == 1
    counts = {state: many for state, many in (await storage.get_job_counts()).items() if many}
    assert counts == {JobState.SUCCEEDED: 1, JobState.ENQUEUED: 1}
    assert len(await storage.list()) == 2


class Meddlers:
    """Writers of the same jobs, each time in another order."""

    def __init__(self, storage: Storage, jobs: list[Job]) -> None:
        self.storage, self.jobs, self.random = storage, jobs, Random(1)

    def shuffled(self) -> list[Job]:
        return self.random.sample(self.jobs, len(self.jobs))

    async def claim_and_settle(self) -> None:
        claimed = await self.storage.claim("w", None, 30, 30.0)
        self.random.shuffle(claimed)
        await self.storage.renew(claimed)
        await self.storage.backend.report([Report(job.id, job.claim_id, b"1") for job in claimed])
        await asyncio.gather(*(self.storage.retry(job, 0.0) for job in claimed))

    async def move(self) -> None:
        ids = [job.id for job in self.shuffled()]
        await self.storage.backend.move(ids, JobState.ENQUEUED, set(JobState))
        await self.storage.backend.move(ids[::-1], JobState.DELETED, {JobState.SCHEDULED})

    async def update(self) -> None:
        await self.storage.backend.update(
            [job.replace(priority=self.random.randrange(3)) for job in self.shuffled()], None
        )

    async def push(self) -> None:
        await self.storage.backend.push(self.shuffled(), each=self.random.random() < 0.5)

    async def sweep(self) -> None:
        await self.storage.sweep(20)

    async def erase(self) -> None:
        await self.storage.backend.erase([job.id for job in self.shuffled()[:5]])

    async def watch(self) -> None:
        await self.storage.backend.watch([job.id for job in self.shuffled()], 30.0)

    async def bound(self) -> None:
        bounds = {"concurrency": 20, "rate": 1e6, "burst": 15, "max_waiting": 40, "when_full": "drop_oldest"}
        await self.storage.configure_queue(self.random.choice("ab"), **self.random.choice([{}, bounds]))

    async def go_on(self, act: Callable[[], Awaitable[None]], until: float) -> int:
        turns = 0
        while monotonic() < until:
            await act()
            turns += 1
        return turns


@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
async def test_writers_of_the_same_jobs_never_lock_each_other_out(connect, url, direct, servers, watched) -> None:
    """Each verb locks in the order of ids, whatever order it was called in, so no circle can close.

    Where a job is watched PostgreSQL itself may close one, as `watch.sql` says, and what was undone is done again.
    """
    storage: Storage = await connect(url, max_connections=20)
    jobs = await put(storage, 60, max_retries=1_000)
    some, before = Meddlers(storage, jobs), await deadlocks(direct)
    acts = [some.claim_and_settle, some.move, some.update, some.push] * 2 + [some.sweep] + [some.watch] * watched

    turns = await asyncio.gather(*(some.go_on(act, monotonic() + 3.0) for act in acts))

    print(f"\nturns {turns}")
    assert min(turns) > 3
    assert watched or await deadlocks(direct) == before, told_of_deadlocks(servers.server(url))
    found = await storage.backend.get([job.id for job in jobs])
    counted = Counter(job.state for job in found if job is not None)
    assert {state: many for state, many in (await storage.get_job_counts()).items() if many} == counted


async def test_writers_of_jobs_with_keys_in_bounded_queues_never_lock_each_other_out(
    connect, url, direct, servers
) -> None:
    """Keys and bounds have their place in the order; who holds a key is a job that is there, and the only one with it."""
    storage: Storage = await connect(url, max_connections=20, max_jobs=50)
    jobs = [
        Job("work", queue="ab"[number % 2], priority=number % 3, max_retries=9, unique_key=key, unique_for=window)
        for number, (key, window) in enumerate([*KEYS, *KEYS])
    ]
    some, before = Meddlers(storage, jobs), await deadlocks(direct)
    acts = [some.claim_and_settle, some.move, some.push, some.push] * 2
    acts += [some.sweep, some.erase, some.bound, some.update]

    turns = await asyncio.gather(*(some.go_on(forgiving(act), monotonic() + 3.0) for act in acts))

    print(f"\nturns {turns}")
    assert min(turns) > 3
    assert await deadlocks(direct) == before, told_of_deadlocks(servers.server(url))
    found = [job for job in await storage.backend.get([job.id for job in jobs]) if job is not None]
    counted = Counter(job.state for job in found)
    assert {state: many for state, many in (await storage.get_job_counts()).items() if many} == counted
    held = {job.unique_key: job.id for job in found if job.state in LIVE and job.unique_for is None}
    assert len(held) == sum(job.state in LIVE and job.unique_for is None for job in found)
    lasting = [key for key, window in KEYS if window is None]
    assert await storage.backend.holders(lasting) == [held.get(key) for key in lasting]


KEYS = [(f"key {number}", 0.05 if number % 3 == 0 else None) for number in range(20)]


def forgiving(act: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """What goes on where something is full."""

    async def forgive() -> None:
        with suppress(CapacityExceeded):
            await act()

    return forgive


async def deadlocks(connection: Any) -> int:
    """How many the server has resolved so far."""
    await connection.execute("select pg_stat_clear_snapshot()")
    return int(await connection.fetchval("select sum(deadlocks) from pg_stat_database"))


def told_of_deadlocks(server: LocalServer) -> str:
    """What the server wrote down of them: who waited for whom, and in which statements."""
    lines = server.log.read_text(errors="replace").splitlines()
    return "\n".join(line for at, line in enumerate(lines) if "deadlock" in "".join(lines[max(at - 20, 0) : at + 1]))


async def test_a_job_that_is_locked_while_a_claim_looks_is_not_handed_out(storage, schema, direct) -> None:
    """The lock is in the row itself, so that a claim which began before sees it."""
    first, second = await put(storage, 2)
    transaction = direct.transaction()
    await transaction.start()
    lock = Names(schema, "qml_jobs").fill("select qml.lock_job($1, 'owner', 3600, null)")
    assert await direct.fetchval(lock, first.id) == 1
    assert [job.id for job in await storage.claim("w", None, 10, 30.0)] == [second.id]
    await transaction.commit()
    assert await storage.claim("w", None, 10, 30.0) == []
    await storage.release_job_lock(first.id, "owner")
    assert [job.id for job in await storage.claim("w", None, 10, 30.0)] == [first.id]


async def test_a_claim_over_many_queues_holds_nothing_that_it_does_not_take(storage, schema, direct) -> None:
    """Two claims at once share out all that is there, in order, though each looks into every queue."""
    jobs = [Job("work", queue=queue, priority=priority) for priority in (3, 2, 1) for queue in ("a", "b", "c")]
    await storage.enqueue_many(jobs)
    transaction = direct.transaction()
    await transaction.start()
    claim_two = Names(schema, "qml_jobs").fill(
        "select id from qml.claim('other', array['a', 'b', 'c'], 2, 30, false, null)"
    )
    taken = {str(row["id"]) for row in await direct.fetch(claim_two)}
    assert taken == {job.id for job in jobs[:2]}
    claimed = [await storage.claim("w", ["c", "a", "b"], many, 30.0) for many in (3, 10)]
    await transaction.rollback()
    assert [job.id for each in claimed for job in each] == [job.id for job in jobs[2:]]
    assert {job.id for job in await storage.claim("w", None, 10, 30.0)} == taken


async def test_counts_are_added_up_and_stay_exact(storage, schema, direct) -> None:
    job = await bring_to(storage, JobState.SUCCEEDED, queue="other")
    for _ in range(1_100):
        await storage.backend.push([Job("work")])
    rows = f"select count(*) from {schema}.qml_jobs_count"
    assert await direct.fetchval(rows) > 1_100

    await asyncio.gather(*(storage.sweep() for _ in range(5)))

    assert await direct.fetchval(rows) < 10
    assert (await storage.get_queue_counts())["default"][JobState.ENQUEUED] == 1_100
    assert (await storage.get_queue_counts())["other"][JobState.SUCCEEDED] == 1
    await storage.delete(job.id)
    assert sum((await storage.get_job_counts("other")).values()) == 0


async def test_servers_that_sweep_at_once_prune_no_more_than_is_too_much(connect, url) -> None:
    storages = [await connect(url, max_finished_jobs=50) for _ in range(4)]
    await put(storages[0], 200)
    claimed = await storages[0].claim("w", None, 200, 30.0)
    await storages[0].settle([Outcome(job.id, job.claim_id, JobState.SUCCEEDED) for job in claimed])
    for _ in range(3):
        await asyncio.gather(*(storage.sweep(20) for storage in storages))
        assert (await storages[0].get_job_counts())[JobState.SUCCEEDED] >= 50
    for _ in range(10):
        await storages[0].sweep(20)
    assert (await storages[0].get_job_counts())[JobState.SUCCEEDED] == 50


async def test_what_can_not_be_sent_is_told_at_once(connect, url) -> None:
    storage = await connect(url, command_timeout=60)
    wrong: Any = 5
    async with asyncio.timeout(20):
        with pytest.raises(StorageUnavailable, match="refuses: invalid input for query argument"):
            await storage.list(queue=wrong)


@pytest.mark.parametrize("verb", ["update", "cancel"])
async def test_what_becomes_live_and_is_claimed_while_a_verb_waits_is_counted_once(
    storage, schema, direct, url, verb
) -> None:
    first, second = [await bring_to(storage, JobState.FAILED) for _ in range(2)]
    names, claimer, watcher = Names(schema, "qml_jobs"), await asyncpg.connect(url), await asyncpg.connect(url)
    held, claiming = direct.transaction(), claimer.transaction()
    await held.start()
    await direct.fetch(names.fill("select from qml.done where id = $1 for update"), first.id)
    ids = [first.id, second.id]
    if verb == "update":
        acting = asyncio.create_task(
            storage.backend.update([first.replace(priority=1), second.replace(priority=1)], None)
        )
    else:
        acting = asyncio.create_task(storage.backend.move(ids, JobState.DELETED, set(JobState)))
    await waits(watcher)
    await storage.requeue(second.id)
    await claiming.start()
    claimed = await claimer.fetch(names.fill("select id from qml.claim('w', null, 9, 30, false, null)"))
    assert [str(row["id"]) for row in claimed] == [second.id]
    await held.rollback()
    await waits(watcher)
    await claiming.commit()
    await acting

    counted = Counter(job.state for job in await storage.backend.get(ids) if job is not None)
    assert {state: many for state, many in (await storage.get_job_counts()).items() if many} == counted
    await claimer.close()
    await watcher.close()


async def test_a_server_claims_over_one_connection_however_many_slots_it_has(storage) -> None:
    claim, under_way, most = storage.backend.claim, 0, 0

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await claim(*arguments, **options)
        finally:
            under_way -= 1

    storage.backend.claim = counted
    await storage.enqueue_many([Job("noop") for _ in range(2_000)])
    async with BackgroundJobServer(storage, synthetic_tasks(), worker_count=100) as server:
        await server.drained()

    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == 2_000
    assert most == 1
