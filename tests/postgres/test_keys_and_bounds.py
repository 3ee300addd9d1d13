"""Transactions that meet over a unique key, over a bound of a queue, or over a job that somebody watches."""

import asyncio
from typing import Any

import pytest

from qml_nb import Job, JobState
from qml_nb.storage.backend import WATCHED
from qml_nb.storage.postgres.names import Names
from qml_nb.storage.storage import Storage
from tests.contract.states import bring_to, claim, claim_ids, ids, put
from tests.contract.test_wait import waiting, woken
from tests.postgres.waiting import waits

SETTLE = (
    "select qml.settle($1, $2, array[4]::smallint[], array[null]::json[], array[null]::text[], array[0], null, 9, 9)"
)
CLAIM = "select id from qml.claim('other', array['a'], 1, 30, false, null)"


@pytest.fixture
def names(schema: str) -> Names:
    """The names of the test's install."""
    return Names(schema, "qml_jobs")


def keyed(**options: Any) -> Job:
    """A new job with a unique key."""
    return Job("work", unique_key="key", **options)


async def holder(storage: Storage) -> str | None:
    """The id of the job by which the key is taken."""
    return (await storage.backend.holders(["key"]))[0]


# -- unique keys


@pytest.mark.parametrize("commits", [True, False])
async def test_a_key_of_a_job_that_is_being_settled_is_waited_for(storage, names, direct, watcher, commits) -> None:
    first, second = keyed(), keyed()
    await storage.enqueue(first)
    running = await claim(storage)
    transaction = direct.transaction()
    await transaction.start()
    await direct.fetch(names.fill(SETTLE), [running.id], [running.claim_id])
    pushing = asyncio.create_task(storage.enqueue(second))
    await waits(watcher)
    await (transaction.commit() if commits else transaction.rollback())

    assert await pushing is commits
    assert await holder(storage) == (second if commits else first).id


async def test_of_failed_jobs_that_are_requeued_at_once_one_takes_their_key(storage, names, direct, watcher) -> None:
    first, second = [await bring_to(storage, JobState.FAILED, unique_key="key") for _ in range(2)]
    transaction = direct.transaction()
    await transaction.start()
    requeue = names.fill("select qml.move(array[$1::uuid], 0::smallint, array[5]::smallint[], null, null, null)")
    await direct.fetch(requeue, first.id)
    requeuing = asyncio.create_task(storage.requeue(second.id))
    await waits(watcher)
    await transaction.commit()

    assert await requeuing is False
    assert await storage.get(second.id) == second
    assert await claim_ids(storage) == [first.id]


async def test_a_resend_that_meets_its_own_job_leaves_the_key_to_that(storage, names, direct, watcher) -> None:
    job, another = keyed(), Job("another")
    transaction = direct.transaction()
    await transaction.start()
    await storage.enqueue(job, connection=direct)
    resending = asyncio.create_task(storage.enqueue_many([another, job]))
    await waits(watcher)
    await transaction.commit()

    assert await resending == 1
    assert await holder(storage) == job.id


async def test_a_key_that_was_taken_for_a_job_that_is_there_by_now_is_given_back(
    storage, names, direct, watcher
) -> None:
    """The same id, once without the key."""
    plain = Job("plain")
    transaction = direct.transaction()
    await transaction.start()
    await storage.enqueue(plain, connection=direct)
    pushing = asyncio.create_task(storage.enqueue(keyed(id=plain.id)))
    await waits(watcher)
    await transaction.commit()

    assert await pushing is False
    assert await storage.get(plain.id) == plain
    assert await holder(storage) is None


@pytest.mark.parametrize("ends", [False, True])
async def test_a_job_that_is_stored_while_its_resend_takes_keys_keeps_its_own(
    storage, schema, direct, watcher, ends
) -> None:
    job, old = keyed(unique_for=600.0), f"{schema}.qml_jobs_unique_key"
    await direct.execute(f"insert into {old} values ('old', gen_random_uuid(), 0)")
    transaction = direct.transaction()
    await transaction.start()
    await direct.execute(f"select from {old} for update")
    resending = asyncio.create_task(storage.enqueue_many([Job("another", unique_key="old"), job]))
    await waits(watcher)
    assert await storage.enqueue(job) is True
    if ends:
        await storage.cancel(job.id)
    await transaction.rollback()

    assert await resending == 1
    assert await holder(storage) == job.id


# -- bounds


async def test_a_claim_that_waits_for_another_one_counts_what_that_took(storage, names, direct, watcher) -> None:
    await storage.configure_queue("a", concurrency=2)
    jobs = await put(storage, 4, queue="a")
    transaction = direct.transaction()
    await transaction.start()
    assert await direct.fetchval(names.fill(CLAIM))
    claiming = asyncio.create_task(storage.fetch_available_jobs_atomic("worker", 4))
    await waits(watcher)
    await transaction.commit()

    assert ids(await claiming) == [jobs[1].id]


async def test_a_claim_of_other_queues_waits_for_nobody(storage, names, direct) -> None:
    await storage.configure_queue("a", concurrency=2, rate=1.0)
    await put(storage, 2, queue="a")
    [other] = await put(storage, queue="b")
    transaction = direct.transaction()
    await transaction.start()
    await direct.fetch(names.fill(CLAIM))

    async with asyncio.timeout(5):
        assert ids(await storage.fetch_available_jobs_atomic("worker", 4, ["b"])) == [other.id]
    await transaction.rollback()


async def test_a_turn_that_is_free_once_the_other_transaction_ends_wakes_who_waits(storage, names, direct) -> None:
    """Neither the push sees the settlement, nor the settlement the push."""
    await storage.configure_queue("a", concurrency=1)
    await put(storage, queue="a")
    running = await claim(storage)
    task = await waiting(storage, ["a"])
    transaction = direct.transaction()
    await transaction.start()
    await direct.fetch(names.fill(SETTLE), [running.id], [running.claim_id])
    [job] = await put(storage, queue="a")
    await asyncio.sleep(0.05)
    assert not task.done()
    await transaction.commit()

    assert await woken(task) is True
    assert await claim_ids(storage) == [job.id]


async def test_pushes_into_a_bounded_queue_at_once_see_each_other(storage, names, direct, watcher) -> None:
    await storage.configure_queue("default", max_waiting=3, when_full="drop_oldest")
    first = await put(storage, 2)
    transaction = direct.transaction()
    await transaction.start()
    await storage.enqueue_many(theirs := [Job("work"), Job("work")], connection=direct)
    pushing = asyncio.create_task(storage.enqueue(mine := Job("work")))
    await waits(watcher)
    await transaction.commit()

    assert await pushing is True
    assert ids(await storage.get_available_jobs()) == ids([*theirs, mine])
    assert ids(await storage.list("deleted")) == ids(first[::-1])


async def test_one_of_many_who_wait_is_woken_for_a_turn(storage) -> None:
    await storage.configure_queue("a", concurrency=1)
    await put(storage, 3, queue="a")
    running = await claim(storage)
    tasks = [await waiting(storage, ["a"]) for _ in range(3)]

    await storage.complete(running)

    done, pending = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(pending)) == (1, 2)
    await storage.configure_queue("a")
    assert all(await asyncio.gather(*tasks))


async def test_who_gives_up_while_it_looks_hands_on_what_it_was_told(storage, schema, direct, watcher) -> None:
    await storage.configure_queue("a", concurrency=1)
    await put(storage, 2, queue="a")
    running = await claim(storage)
    first, second = [await waiting(storage, ["a"]) for _ in range(2)]
    transaction = direct.transaction()
    await transaction.start()
    await direct.execute(f"lock table {schema}.qml_jobs_paused in access exclusive mode")  # so that a look takes long
    await storage.complete(running)
    await waits(watcher)
    first.cancel()
    await transaction.rollback()

    assert await woken(second) is True


# -- watches


async def test_a_job_that_ends_while_a_watch_begins_is_seen_as_ended(storage, names, direct, watcher) -> None:
    await put(storage)
    running = await claim(storage)
    transaction = direct.transaction()
    await transaction.start()
    await direct.fetch(names.fill(SETTLE), [running.id], [running.claim_id])
    watching = asyncio.create_task(storage.backend.watch([running.id], 30.0))
    await waits(watcher)
    await transaction.commit()

    [job] = await watching
    assert job is not None
    assert job.state is JobState.SUCCEEDED


async def test_a_job_that_ends_after_a_watch_began_is_told(storage, names, direct, watcher) -> None:
    await put(storage)
    running = await claim(storage)
    inbox = await storage.subscribe(WATCHED)
    transaction = direct.transaction()
    await transaction.start()
    [row] = await direct.fetch(names.fill("select state from qml.watch(array[$1::uuid], 30)"), running.id)
    assert row["state"] == 1
    completing = asyncio.create_task(storage.complete(running))
    await waits(watcher)
    await transaction.commit()

    assert await completing is True
    assert await asyncio.wait_for(anext(inbox), 10) == running.id.encode()


async def test_a_watch_that_begins_hides_no_job_from_a_claim(storage, names, direct) -> None:
    [job] = await put(storage)
    transaction = direct.transaction()
    await transaction.start()
    await direct.fetch(names.fill("select from qml.watch(array[$1::uuid], 30)"), job.id)

    assert await claim_ids(storage) == [job.id]
    await transaction.rollback()


async def test_watches_keys_and_servers_whose_time_is_up_do_not_pile_up(storage, schema, direct) -> None:
    jobs = [Job("work", unique_key=f"key {number}", unique_for=5.0) for number in range(200)]
    await storage.enqueue_many(jobs)
    await storage.backend.watch(ids(jobs), 5.0)
    tables = [f"{schema}.qml_jobs_{name}" for name in ("unique_key", "watched")]
    assert [await direct.fetchval(f"select count(*) from {table}") for table in tables] == [200, 200]
    for table in tables:
        await direct.execute(f"update {table} set until = until - 5")

    await storage.sweep(150)
    assert [await direct.fetchval(f"select count(*) from {table}") for table in tables] == [50, 50]
    await storage.sweep(150)
    assert [await direct.fetchval(f"select count(*) from {table}") for table in tables] == [0, 0]
