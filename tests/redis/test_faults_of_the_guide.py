"""The faults that the guide's own library had on Redis, by their numbers in part D of the reference: none is here.

The contract suite, which runs on Redis and on a cluster, catches most of them:

- 5 and 25, a fetch that returns nothing: `test_claim_races`
- 7, 19 and 25, lowest priority first, newest first, promoted jobs last: `test_claim`, `test_model`
- 10, a job that is to run again and stays locked: `test_claim` and `test_sweep`
- 13 and 30, an answer that comes too late and overwrites the newer run: `test_settle`, `test_move`
- 14 and 26, attempts that are not stored: `test_claim`, `test_sweep`
- 20, numbers and empty lists that a script re-encodes: `test_json`
- 25, queues that are ignored: `test_claim`; milliseconds taken for seconds: `test_get`, `test_sweep`
- 28, counts that drift: `test_counts`, `test_model`
- 29, a job promoted twice or lost: `test_sweep`
- 33, a retry that shows as failed: `test_settle`
- 35, counts by instants: `test_counts`
- 36, the last entry that is dropped: `test_peek`
- 37, tests that skip in silence: the contract's summary counts the cases of each backend

and its neighbours here catch 5 and 24, options that nothing reads (`test_bounds`, `test_reaching`, `test_login`,
`test_tls`), and 7, 23 and 25, keys without the prefix or outside the slot (`test_sharing`). The rest is below.
"""

import asyncio
import sys
from typing import Any

import pytest

from qml_nb.job import Job
from qml_nb.servers import LocalServers
from qml_nb.servers.process import LocalServer
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at
from tests.contract.states import ALL, bring_to, claim, ids, put
from tests.redis.wire import listening
from tests.servers.asking import ask
from tests.verbs import exercise

SCAN_CAP = 1_024
"""How many entries the guide's library looked at."""


@pytest.fixture
def server(servers: LocalServers, url: str) -> LocalServer:
    """The server of these tests, empty."""
    ask(url, "FLUSHALL")
    return servers.server(url)


async def warm_up(storage: Storage) -> None:
    """Use each script once, so that the server knows it."""
    await exercise(storage)
    for job in await storage.list(limit=ALL):
        await storage.delete(job.id)


# -- round trips


async def test_one_enqueue_is_one_round_trip(storage: Storage, server: LocalServer) -> None:
    """24: it took five or six."""
    await warm_up(storage)
    with listening(server) as heard:
        await storage.enqueue(Job("work"))

    assert len(heard.sent) == 1


async def test_many_enqueues_at_once_share_round_trips(storage: Storage, server: LocalServer) -> None:
    """5: pipelining was a row of the guide, and no code."""
    await warm_up(storage)
    with listening(server) as heard:
        await asyncio.gather(*(storage.enqueue(Job("work")) for _ in range(2_000)))

    assert len(heard.sent) <= 10


async def test_a_batch_is_claimed_renewed_and_settled_in_a_round_trip_each(
    storage: Storage, server: LocalServer
) -> None:
    """24: there was no batch claim and no batch answer; 5: a loop of single fetches."""
    await warm_up(storage)
    await put(storage, 500)
    with listening(server) as heard:
        jobs = await storage.fetch_available_jobs_atomic("worker", 500)
        await storage.renew(jobs)
        await asyncio.gather(*map(storage.complete, jobs))

    assert len(jobs) == 500
    assert len(heard.sent) <= 4


async def test_a_page_and_the_counts_take_a_round_trip_each(storage: Storage, server: LocalServer) -> None:
    """24: the page of a list read all ids, and then each job by itself."""
    await warm_up(storage)
    await put(storage, 3_000)
    with listening(server) as heard:
        assert len(await storage.list(limit=50)) == 50
        await storage.get_job_counts()

    assert len(heard.sent) == 2


async def test_nobody_polls_while_there_is_no_work(storage: Storage, server: LocalServer) -> None:
    """24: workers did nothing but poll."""
    waiting = [asyncio.create_task(storage.wait(timeout=30)) for _ in range(20)]
    await asyncio.sleep(0.2)
    with listening(server) as heard:
        await asyncio.sleep(0.5)

    assert heard.sent == []
    await put(storage, 20)
    assert all(await asyncio.gather(*waiting))


# -- work that does not grow with what is stored


async def calls_of(server: LocalServer, verb: Any) -> int:
    """How many commands the scripts of a call run."""
    with listening(server) as heard:
        await verb
    return len(heard.by_scripts)


async def test_promoting_one_job_does_not_read_all_the_scheduled_ones(storage: Storage, server: LocalServer) -> None:
    """18: each tick read every scheduled job inside a script, while the server answered nobody."""
    await storage.schedule(Job("work"), at=at(0))
    alone = await calls_of(server, storage.sweep(now=at(1)))
    await storage.schedule(Job("work"), at=at(2))
    await asyncio.gather(*(storage.schedule(Job("work"), at=at(1_000)) for _ in range(3_000)))

    assert await calls_of(server, storage.sweep(now=at(3))) <= alone
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 2


async def test_a_sweep_promotes_far_more_than_a_thousand_a_tick(storage: Storage, server: LocalServer) -> None:
    """18: a thousand each 30 seconds, 33 a second."""
    await asyncio.gather(*(storage.schedule(Job("work"), at=at(0)) for _ in range(5_000)))

    assert (await storage.sweep(5_000, now=at(1))).promoted == 5_000


@pytest.mark.parametrize("queues", [None, ["default"], ["default", "other"]])
async def test_claiming_costs_the_same_whatever_waits(
    storage: Storage, server: LocalServer, queues: list[str] | None
) -> None:
    """24, and 2 of the memory storage: a fetch that looks at everything gets slower with the backlog."""
    await put(storage, 20)
    few = await calls_of(server, storage.fetch_available_jobs_atomic("worker", 10, queues))
    await put(storage, 5_000)

    assert await calls_of(server, storage.fetch_available_jobs_atomic("worker", 10, queues)) == few


# -- what is stored


async def test_a_jobs_body_is_never_written_again(storage: Storage, server: LocalServer) -> None:
    """20: scripts decoded and encoded whole jobs; here they don't touch what the caller gave."""
    job = Job("work", [[], {}, 2**53 + 1, 1234567890123456, 0.1 + 0.2, 1e300], max_retries=5)
    await storage.enqueue(job)
    with listening(server) as heard:
        await storage.retry(await claim(storage), 5, "later", now=at(0))
        await storage.sweep(now=at(5))
        await storage.hand_back(await claim(storage))
        await storage.fail(await claim(storage), "it broke")
        await storage.requeue(job.id)
        await storage.complete(await claim(storage), {"answer": []})

    assert [line for line in heard.by_scripts if ":jobs" in line and '"hset"' in line.lower()] == []
    stored = await storage.get(job.id)
    assert stored is not None
    assert stored.args_json == job.args_json


async def test_the_lock_of_a_job_belongs_to_its_prefix(connect: Any, url: str) -> None:
    """23 and 25: job locks had one fixed prefix for all."""
    one, other = await connect(url, key_prefix="one"), await connect(url, key_prefix="other")
    job = Job("work")
    await one.enqueue(job)
    await other.enqueue(job)

    assert await one.try_acquire_job_lock(job.id, "somebody")
    assert await other.try_acquire_job_lock(job.id, "another")
    assert not await other.release_job_lock(job.id, "somebody")


async def test_the_server_expires_nothing_behind_the_scripts(storage: Storage, server: LocalServer) -> None:
    """28: keys that the server expired left their index entries behind."""
    await exercise(storage)

    expiring = [key for key in ask(server.url, "KEYS", "*") if ask(server.url, "PTTL", key) != -1]
    assert [key for key in expiring if ":wake:" not in key] == []


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED])
async def test_a_pruned_job_leaves_nothing_behind(storage: Storage, server: LocalServer, state: JobState) -> None:
    """28: index entries of expired jobs stayed for ever."""
    before = await left_after_one(storage, server, JobState.SUCCEEDED)
    for _ in range(20):
        job = await bring_to(storage, state)
    await storage.try_acquire_job_lock(job.id, "somebody", now=at(0))
    await storage.sweep(now=at(10_000_000))

    assert keys(server) == before


async def test_a_deleted_job_leaves_nothing_behind(storage: Storage, server: LocalServer) -> None:
    """10 and 28: the job's lock stayed."""
    before = await left_after_one(storage, server, JobState.SUCCEEDED)
    for state in JobState:
        job = await bring_to(storage, state, queue=state)
        await storage.try_acquire_job_lock(job.id, job.worker_id or "somebody")
        await storage.delete(job.id)

    assert keys(server) == before


async def left_after_one(storage: Storage, server: LocalServer, state: JobState) -> list[str]:
    """The keys of an empty storage that was used before: its counter of claims."""
    await storage.delete((await bring_to(storage, state)).id)
    assert len(keys(server)) == 1
    return keys(server)


def keys(server: LocalServer) -> list[str]:
    """Every key of the server."""
    return sorted(ask(server.url, "KEYS", "*"))


async def test_locks_whose_time_is_up_do_not_pile_up(storage: Storage, server: LocalServer) -> None:
    """34: the table of locks grew without bound."""
    for number in range(200):
        await storage.try_acquire_lock(f"lock {number}", "owner", 5, now=at(0))
    await storage.sweep(now=at(6))

    assert keys(server) == []


async def test_waiters_that_are_gone_do_not_pile_up(storage: Storage, server: LocalServer) -> None:
    """34, for what this storage keeps besides."""
    assert not any(await asyncio.gather(*(storage.wait([f"queue {n}"], 0.05) for n in range(50))))

    assert keys(server) == []


WAITER = """
import asyncio, sys
from qml_nb.storage import RedisStorage
asyncio.run(RedisStorage(sys.argv[1]).wait(timeout=1.0))
"""


async def test_a_waiter_whose_process_was_killed_is_forgotten(connect: Any, url: str, server: LocalServer) -> None:
    """34, likewise: nobody is left to take it away."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WAITER, url)
    while not keys(server):
        await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    assert "{qml}:parked" in keys(server)

    storage = await connect(url, key_prefix="qml")
    while keys(server):
        await asyncio.sleep(0.05)
        await storage.sweep()


# -- a cap on what is looked at


async def test_a_job_behind_a_thousand_others_is_found(storage: Storage, server: LocalServer) -> None:
    """28: a scan stopped after 1,024 entries."""
    [wanted] = await put(storage, queue="rare")
    await put(storage, 3 * SCAN_CAP)

    assert ids(await storage.list(queue="rare")) == [wanted.id]


async def test_a_job_behind_a_thousand_locked_ones_is_claimed(storage: Storage, server: LocalServer) -> None:
    """28, and 23: a fetch that ignored locks would not have to look."""
    locked = await put(storage, SCAN_CAP + 100, priority=5)
    await asyncio.gather(*(storage.try_acquire_job_lock(job.id, "somebody", 1_000, now=NOW) for job in locked))
    [free] = await put(storage)

    assert (await claim(storage)).id == free.id


async def test_a_queue_behind_a_thousand_others_is_served(storage: Storage, server: LocalServer) -> None:
    """25 and 28: whichever queue came first in a scan was served."""
    await asyncio.gather(*(storage.enqueue(Job("work", queue=f"queue {n}")) for n in range(SCAN_CAP + 100)))
    urgent = Job("work", queue="urgent", priority=1)
    await storage.enqueue(urgent)

    assert (await claim(storage)).id == urgent.id
    assert len(await storage.fetch_available_jobs_atomic("worker", 2 * SCAN_CAP)) == SCAN_CAP + 100
