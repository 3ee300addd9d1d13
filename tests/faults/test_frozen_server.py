"""A server that stands still: each call gives up in time and says what that means, and afterwards everything goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from qml_nb import BackgroundJobServer, Job, JobState, Storage, StorageUnavailable, WorkerRegistry
from qml_nb.servers import LocalServers
from qml_nb.servers.process import LocalServer
from tests.faults.conftest import ASYNCPG_FORGETS, Connect
from tests.faults.load import LONG, load, until

PATIENCE = 0.3
SAID = (
    r"may still be done: jobs sent again under the same ids are stored once|took no connection within|were in use for"
)


@pytest.fixture
def forgiven() -> tuple[str, ...]:
    """Connections are given up all the time here."""
    return ASYNCPG_FORGETS


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest, servers: LocalServers) -> LocalServer:
    """A server to be frozen."""
    return servers.server(getattr(servers, request.param)())


def impatient(connect: Connect, server: LocalServer, patience: float = PATIENCE) -> Storage:
    """A storage without much patience."""
    connecting = "connect_timeout" if server.url.startswith("postgresql:") else "connection_timeout"
    return connect(server.url, command_timeout=patience, **{connecting: 3 * patience})


@pytest.fixture
async def storage(connect: Connect, server: LocalServer) -> Storage:
    """One that is connected; its tables were made in peace."""
    await connect(server.url).enqueue(Job("work", queue="waits"))
    storage = impatient(connect, server)
    await storage.get(Job("work").id)
    return storage


CALLS = {
    "enqueue": lambda s, job: s.enqueue(Job("work")),
    "enqueue_many": lambda s, job: s.enqueue_many([Job("work") for _ in range(3_000)]),
    "schedule": lambda s, job: s.schedule(Job("work"), delay=60),
    "claim": lambda s, job: s.fetch_and_lock_job("worker"),
    "complete": lambda s, job: s.complete(job),
    "renew": lambda s, job: s.renew(job),
    "sweep": lambda s, job: s.sweep(),
    "get": lambda s, job: s.get(job.id),
    "list": lambda s, job: s.list(),
    "counts": lambda s, job: s.get_job_counts(),
    "cancel": lambda s, job: s.cancel(job.id),
    "delete": lambda s, job: s.delete(job.id),
    "wait": lambda s, job: s.wait(["other"], timeout=0.1),
    "lock": lambda s, job: s.try_acquire_lock("name", "owner"),
    "heartbeat": lambda s, job: s.heartbeat("id"),
    "publish": lambda s, job: s.publish("news", b""),
}


async def refused(call) -> None:
    """Return once the call has given up, for the reason that is true."""
    with pytest.raises(StorageUnavailable, match=SAID):
        async with asyncio.timeout(LONG):
            await call


async def test_each_call_gives_up_and_works_again_later(storage: Storage, server: LocalServer) -> None:
    job = await storage.fetch_and_lock_job("worker", ["waits"])
    server.freeze()
    await asyncio.gather(*(refused(call(storage, job)) for call in CALLS.values()))
    for call in CALLS.values():
        await refused(call(storage, job))
    server.thaw()
    for call in CALLS.values():
        await call(storage, job)


async def test_many_callers_give_up_together_not_ten_by_ten(storage: Storage, server: LocalServer) -> None:
    loop, callers = asyncio.get_running_loop(), 2_000
    server.freeze()
    started = loop.time()
    await asyncio.gather(*(refused(storage.get(Job("work").id)) for _ in range(callers)))
    in_tens = PATIENCE * callers / 10
    assert loop.time() - started < in_tens / 3
    server.thaw()
    assert await storage.get(Job("work").id) is None


async def test_jobs_sent_again_after_it_are_stored_once(storage: Storage, server: LocalServer) -> None:
    jobs = [Job("work", [number]) for number in range(100)]
    server.freeze()
    await asyncio.gather(
        *(refused(storage.enqueue(job)) for job in jobs[:50]), refused(storage.enqueue_many(jobs[50:]))
    )
    server.thaw()
    await asyncio.gather(*(storage.enqueue(job) for job in jobs[:50]), storage.enqueue_many(jobs[50:]))
    assert (await storage.get_job_counts("default"))[JobState.ENQUEUED] == 100
    claimed = await storage.fetch_available_jobs_atomic("worker", 1_000, ["default"])
    assert [job.args for job in claimed] == [[number] for number in range(100)]


async def test_a_worker_that_waits_recovers(connect: Connect, server: LocalServer, caplog) -> None:
    storage = impatient(connect, server, 4 * PATIENCE)  # it begins on a machine that may be busy
    ran, registry = asyncio.Event(), WorkerRegistry()

    @registry.task("ring")
    async def ring() -> None:
        ran.set()

    async with BackgroundJobServer(storage, registry, polling_interval=0.2):
        server.freeze()
        await until(lambda: "could not claim jobs" in caplog.text)
        server.thaw()
        job = Job("ring")
        async with asyncio.timeout(LONG):
            while not ran.is_set():  # a busy machine may need longer than its patience
                with suppress(StorageUnavailable, TimeoutError):
                    await storage.enqueue(job)
                    await asyncio.wait_for(ran.wait(), 1.0)


async def test_a_subscription_hears_what_comes_later(storage: Storage, server: LocalServer) -> None:
    messages = await storage.subscribe("news")
    server.freeze()
    await refused(storage.get(Job("work").id))
    server.thaw()
    await storage.publish("news", b"later")
    assert await asyncio.wait_for(anext(messages), LONG) == b"later"


async def test_load_goes_on(storage: Storage, server: LocalServer) -> None:
    async with load(storage) as flow:
        for _ in range(3):
            server.freeze()
            await flow.is_refused()
            server.thaw()
            await flow.goes_on()


async def test_a_new_storage_finds_out_too(connect: Connect, server: LocalServer) -> None:
    server.freeze()
    storage = impatient(connect, server)
    with pytest.raises(StorageUnavailable):
        async with asyncio.timeout(LONG):
            await storage.enqueue(Job("work"))
    server.thaw()
    assert await storage.enqueue(Job("work"))
