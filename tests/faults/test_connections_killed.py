"""Connections break under load: waiters and subscribers recover, and answers that got lost are given again."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from qml_nb import Job, JobState, Storage, StorageUnavailable
from qml_nb.servers import LocalServers
from tests.faults.conftest import ASYNCPG_FORGETS, Connect, start
from tests.faults.hearing import publish_until_heard
from tests.faults.load import LONG, load, until
from tests.faults.wire import Wire
from tests.servers.asking import ask


@pytest.fixture
def forgiven() -> tuple[str, ...]:
    """Connections are given up all the time here."""
    return ASYNCPG_FORGETS


async def kill_connections(servers: LocalServers) -> None:
    """Have all servers close the connections of all their clients."""
    for server in servers._servers.values():
        if server.url.startswith("postgresql:"):
            await ask_postgres(server.url, "select pg_terminate_backend(pid) from pg_stat_activity where " + OTHERS)
            continue
        for kind in ("normal", "pubsub"):
            ask(server.url, "CLIENT", "KILL", "TYPE", kind)


async def asleep(servers: LocalServers) -> int:
    """How many connections wait for work."""
    many = 0
    for server in servers._servers.values():
        if server.url.startswith("postgresql:"):
            many += await ask_postgres(server.url, f"select count(*) from pg_stat_activity where {LISTENING}")
        else:
            many += ask(server.url, "INFO", "clients")["blocked_clients"]
    return many


OTHERS = "pid <> pg_backend_pid() and backend_type = 'client backend'"
LISTENING = f"{OTHERS} and query ilike 'listen%'"


async def ask_postgres(url: str, query: str) -> Any:
    """Return the answer to one question, on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_load_goes_on(storage: Storage, servers: LocalServers) -> None:
    async with load(storage) as flow:
        for _ in range(10):
            await kill_connections(servers)
            await flow.goes_on()
    assert flow.unsure == []


async def test_a_waiter_goes_on_waiting_and_is_woken(connect: Connect, url: str, servers: LocalServers) -> None:
    waiters = [asyncio.create_task(wait_for_work(connect(url))) for _ in range(3)]
    for _ in range(3):
        await until(lambda: three_sleep(servers))
        await kill_connections(servers)
    await until(lambda: three_sleep(servers))
    await connect(url).enqueue_many([Job("work") for _ in waiters])
    await asyncio.wait_for(asyncio.gather(*waiters), LONG)


async def three_sleep(servers: LocalServers) -> bool:
    return await asleep(servers) == 3


async def wait_for_work(storage: Storage) -> None:
    """Return once there is a job. A waiter may be told to look: what came while its connection was away nobody heard."""
    while await storage.wait(timeout=60) and not await storage.get_available_jobs():
        pass


async def test_a_waiter_that_is_cancelled_while_its_server_is_away_makes_no_noise(
    connect: Connect, durable, servers
) -> None:
    server = durable
    waiter = asyncio.create_task(wait_for_work(connect(server.url)))
    await until(lambda: asleep(servers))
    server.kill()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


@pytest.mark.parametrize("away", [False, True], ids=["at once", "after a restart"])
async def test_a_subscription_hears_again(storage: Storage, servers: LocalServers, away: bool) -> None:
    messages = await storage.subscribe("news")
    for number in range(3):
        await kill_connections(servers)
        if away:
            await asyncio.to_thread(lambda: [server.restart() for server in servers._servers.values()])
        await publish_until_heard(storage, messages, b"%d" % number)


@pytest.fixture(params=["redis", "postgres"])
async def wire(request: pytest.FixtureRequest, servers: LocalServers):
    """A wire to a server, that loses answers."""
    async with Wire(start(servers, request.param)) as wire:
        yield wire


@pytest.fixture
async def far(connect: Connect, wire: Wire) -> Storage:
    """A storage at the end of the wire, whose scripts or statements the server knows."""
    storage = connect(wire.url)
    job = Job("warm", queue="warm")
    await storage.enqueue(job)
    claimed = await storage.fetch_and_lock_job("worker", ["warm"])
    await storage.renew(claimed)
    await storage.hand_back(claimed)
    await storage.delete(job.id)
    return storage


SETTLE = {
    JobState.SUCCEEDED: lambda storage, job: storage.complete(job, {"answer": 42}),
    JobState.FAILED: lambda storage, job: storage.fail(job, "broken"),
    JobState.AWAITING_RETRY: lambda storage, job: storage.retry(job, 60, "broken"),
    JobState.ENQUEUED: lambda storage, job: storage.hand_back(job),
}


@pytest.mark.parametrize("state", SETTLE)
@pytest.mark.parametrize("times", [1, 3])
async def test_a_settle_whose_answer_got_lost_is_answered_true(far, wire, state, times) -> None:
    await far.enqueue(Job("work"))
    job = await far.fetch_and_lock_job("worker")
    wire.to_lose = times
    assert await SETTLE[state](far, job) is True
    assert wire.to_lose == 0
    stored = await far.get(job.id)
    assert (stored.state, stored.attempt) == (state, 0 if state is JobState.ENQUEUED else 1)


async def test_a_settle_of_a_lost_lease_is_refused_though_it_is_sent_twice(far, wire) -> None:
    await far.enqueue(Job("work"))
    job = await far.fetch_and_lock_job("worker")
    await far.hand_back(job)
    again = await far.fetch_and_lock_job("other")
    wire.to_lose = 1
    assert await far.complete(job) is False
    assert await far.complete(again) is True


@pytest.mark.parametrize("times", [1, 3])
async def test_a_push_whose_answer_got_lost_is_answered_as_the_first_one_was(far, wire, times) -> None:
    jobs = [Job("work", [number]) for number in range(1500)]
    wire.to_lose = times
    assert await far.enqueue(jobs[0]) is True
    wire.to_lose = times
    assert await far.enqueue_many(jobs[1:]) == 1499
    assert wire.to_lose == 0
    assert (await far.get_job_counts())[JobState.ENQUEUED] == 1500
    wire.to_lose = times
    assert await far.schedule(Job("later"), delay=60) is True


async def test_a_push_of_another_job_under_a_stored_id_is_false_though_it_is_sent_twice(far, wire) -> None:
    job = Job("work", [1])
    await far.enqueue(job)
    wire.to_lose = 1
    assert await far.enqueue(Job("work", [2], id=job.id)) is False
    assert (await far.get(job.id)).args == [1]


async def test_a_claim_whose_answer_got_lost_raises_and_its_jobs_come_back_after_the_lease(far, wire) -> None:
    await far.enqueue(Job("work"))
    wire.to_lose = 1
    with pytest.raises(StorageUnavailable):
        await far.fetch_and_lock_job("worker", lease=0.1)
    await until(lambda: came_back(far))
    assert (await far.fetch_and_lock_job("worker")).attempt == 2


async def came_back(storage: Storage) -> int:
    return (await storage.sweep()).reclaimed


async def test_reads_and_renewals_are_asked_again(far, wire) -> None:
    await far.enqueue(Job("work"))
    job = await far.fetch_and_lock_job("worker")
    wire.to_lose = 1
    assert (await far.get(job.id)).id == job.id
    wire.to_lose = 1
    assert await far.renew(job) == [True]
    wire.to_lose = 1
    assert (await far.get_job_counts())[JobState.PROCESSING] == 1
    wire.to_lose = 1
    assert await far.list_servers() == []
