"""Stopping is graceful: nothing more starts, what runs gets its time, and everything else goes back."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic, sleep

import pytest

from qml_nb import BackgroundJobServer, InvalidValue, Job, JobState
from tests.server.faults import Faulty
from tests.server.waiting import LONG, ended, full_house, no_threads_left, run, until


class Held:
    """A job that runs until `go` is set."""

    def __init__(self, registry) -> None:
        self.go = asyncio.Event()
        self.started = 0
        registry.register("hold", self._hold)

    async def _hold(self) -> str:
        self.started += 1
        await self.go.wait()
        return "done"


@pytest.fixture
def held(registry) -> Held:
    return Held(registry)


async def counts(storage) -> dict[str, int]:
    return {state.value: many for state, many in (await storage.get_job_counts()).items() if many}


async def test_running_jobs_may_end_while_prefetched_ones_go_back_at_once(storage, registry, serve, held) -> None:
    await storage.enqueue_many([Job("hold") for _ in range(6)])
    server = await serve(worker_count=2, fetch_batch_size=6, shutdown_timeout=60)
    await until(lambda: held.started == 2)
    assert server.snapshot().buffered == 4
    stopping = asyncio.create_task(server.stop())
    while (await counts(storage)).get("processing") != 2:
        await asyncio.sleep(0.002)
    assert await counts(storage) == {"processing": 2, "enqueued": 4}
    assert not stopping.done()
    back = await storage.list("enqueued")
    assert [(job.attempt, job.worker_id, job.started_ts) for job in back] == [(0, None, None)] * 4
    held.go.set()
    await stopping
    assert await counts(storage) == {"succeeded": 2, "enqueued": 4}
    shot = server.snapshot()
    assert (shot.claimed, shot.succeeded, shot.handed_back, shot.busy, shot.slots) == (6, 2, 4, 0, 0)


@pytest.mark.parametrize("shutdown_timeout", [0, 0.05])
async def test_jobs_that_take_longer_are_cancelled_and_go_back(
    storage, registry, serve, held, shutdown_timeout
) -> None:
    await storage.enqueue_many([Job("hold") for _ in range(3)])
    server = await serve(worker_count=3, shutdown_timeout=shutdown_timeout)
    await until(lambda: held.started == 3)
    await server.stop()
    assert await counts(storage) == {"enqueued": 3}
    assert all(job.attempt == 0 for job in await storage.list())
    assert server.snapshot().handed_back == 3


async def test_jobs_that_have_not_taken_their_first_step_go_back_too(storage, registry, serve, held) -> None:
    server = await serve(worker_count=3, shutdown_timeout=0)
    await storage.enqueue_many([Job("hold") for _ in range(3)])
    while not server.snapshot().busy:
        await asyncio.sleep(0)
    await server.stop()
    assert await counts(storage) == {"enqueued": 3}


async def test_nothing_more_is_claimed_once_it_stops(storage, registry, serve, held) -> None:
    await storage.enqueue(Job("hold"))
    server = await serve(worker_count=5, shutdown_timeout=60)
    await until(lambda: held.started == 1)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    await storage.enqueue_many([Job("hold") for _ in range(3)])
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert held.started == 1
    held.go.set()
    await stopping
    assert await counts(storage) == {"succeeded": 1, "enqueued": 3}


async def test_a_plain_function_that_does_not_end_keeps_its_lease(storage, registry, serve) -> None:
    release, started = threading.Event(), threading.Event()

    @registry.task
    def block() -> None:
        started.set()
        release.wait()

    job = Job("block")
    await storage.enqueue(job)
    server = await serve(lease=60, shutdown_timeout=0.05)
    await until(started.is_set)
    await server.stop()
    now = await storage.get(job.id)
    release.set()
    assert (now.state, now.worker_id) == (JobState.PROCESSING, server.server_id)
    assert now.lease_ts is not None
    await no_threads_left()


async def test_a_plain_function_that_can_be_interrupted_goes_back(storage, registry, serve) -> None:
    started = threading.Event()

    @registry.task
    def spin() -> None:
        started.set()
        while True:
            sleep(0.001)

    job = Job("spin")
    await storage.enqueue(job)
    server = await serve(lease=60, shutdown_timeout=0.05)
    await until(started.is_set)
    await server.stop()
    now = await storage.get(job.id)
    assert (now.state, now.attempt) == (JobState.ENQUEUED, 0)
    await no_threads_left()


async def test_a_job_that_ignores_its_cancellation_keeps_its_lease(storage, registry, serve) -> None:
    started, release, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @registry.task
    async def ignore() -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        over.set()

    job = Job("ignore")
    await storage.enqueue(job)
    server = await serve(lease=60)
    await started.wait()
    try:
        await server.stop()
        assert not server.is_running
        assert (await storage.get(job.id)).state is JobState.PROCESSING
    finally:
        release.set()
        await over.wait()


async def test_leases_are_renewed_while_running_jobs_get_their_time(storage, registry, serve, held) -> None:
    job = Job("hold")
    await storage.enqueue(job)
    server = await serve(lease=0.3, shutdown_timeout=60)
    await until(lambda: held.started == 1)
    before = (await storage.get(job.id)).lease_ts
    stopping = asyncio.create_task(server.stop())
    while (now := await storage.get(job.id)).lease_ts < before + 0.6:
        await asyncio.sleep(0.01)
    assert now.attempt == 1
    held.go.set()
    await stopping


async def test_stopping_twice_does_nothing(storage, registry, serve) -> None:
    server = await serve()
    await server.stop()
    await server.stop()
    assert not server.is_running
    await BackgroundJobServer(storage, registry).stop()


async def test_a_second_stop_returns_when_the_first_has_ended(storage, registry, serve, held) -> None:
    await storage.enqueue(Job("hold"))
    server = await serve(shutdown_timeout=60)
    await until(lambda: held.started == 1)
    stops = [asyncio.create_task(server.stop()) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(stop.done() for stop in stops)
    held.go.set()
    await asyncio.gather(*stops)
    assert not server.is_running


async def test_stopping_while_it_starts_leaves_nothing_behind(storage, registry) -> None:
    faults = Faulty(storage)
    faults.hold("put_server")
    server = BackgroundJobServer(storage, registry)
    starting = asyncio.create_task(server.start())
    await until(lambda: faults.calls["put_server"])
    await server.stop()
    faults.release("put_server")
    await starting
    assert not server.is_running
    assert await storage.list_servers() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await no_threads_left()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(storage, registry) -> None:
    faults = Faulty(storage)
    faults.hold("put_server")
    server = BackgroundJobServer(storage, registry)
    starting = asyncio.create_task(server.start())
    await until(lambda: faults.calls["put_server"])
    starting.cancel()
    await asyncio.wait([starting])
    assert not server.is_running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await no_threads_left()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_stop_that_is_cancelled_stops_at_once(storage, registry, serve, held, times) -> None:
    await storage.enqueue_many([Job("hold") for _ in range(4)])
    server = await serve(worker_count=2, fetch_batch_size=4, shutdown_timeout=3600)
    await until(lambda: held.started == 2)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.01)
    for _ in range(times):
        stopping.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await until(lambda: not server.is_running)
    assert await counts(storage) == {"enqueued": 4}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_at_once_cuts_short_the_one_that_waits(storage, registry, serve, held) -> None:
    await storage.enqueue_many([Job("hold") for _ in range(4)])
    server = await serve(worker_count=2, fetch_batch_size=4, shutdown_timeout=3600)
    await until(lambda: held.started == 2)
    stopping = asyncio.create_task(server.stop())
    while (await counts(storage)).get("enqueued") != 2:
        await asyncio.sleep(0.002)
    await server.stop(at_once=True)
    await stopping
    assert await counts(storage) == {"enqueued": 4}
    assert server.snapshot().cut_short == 2
    await server.stop(at_once=True)


async def test_a_stop_at_once_needs_no_other_before_it(storage, registry, serve, held) -> None:
    await storage.enqueue_many([Job("hold") for _ in range(4)])
    server = await serve(worker_count=2, fetch_batch_size=4, shutdown_timeout=3600)
    await until(lambda: held.started == 2)
    await server.stop(at_once=True)
    assert await counts(storage) == {"enqueued": 4}
    assert server.snapshot().cut_short == 2


async def test_a_graceful_stop_cuts_no_job_short(storage, registry, serve, held) -> None:
    await storage.enqueue_many([Job("hold") for _ in range(2)])
    server = await serve(worker_count=2, shutdown_timeout=60)
    await until(lambda: held.started == 2)
    held.go.set()
    await server.stop()
    assert (server.snapshot().succeeded, server.snapshot().cut_short) == (2, 0)


async def test_a_server_that_stopped_starts_again(storage, registry, serve) -> None:
    registry.register("note", lambda: "noted")
    server = await serve()
    for _ in range(3):
        [job] = await run(storage, Job("note"))
        assert job.result == "noted"
        await server.stop()
        assert not server.is_running
        await server.start()
    await full_house(server, 2)
    assert server.snapshot().succeeded == 3 + 2


async def test_a_server_starts_again_in_another_loop(storage, registry) -> None:
    registry.register("note", lambda: "noted")
    server = BackgroundJobServer(storage, registry)
    async with server:
        await run(storage, Job("note"))
    job = Job("note")
    await storage.enqueue(job)

    async def elsewhere() -> None:
        async with server:
            await ended(storage, job)

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert (await storage.get(job.id)).result == "noted"


async def test_starting_twice_is_refused(serve) -> None:
    server = await serve()
    with pytest.raises(InvalidValue, match="stopped before it starts"):
        await server.start()
    assert server.is_running


async def test_a_job_may_stop_its_own_server(storage, registry, serve) -> None:
    servers: list[BackgroundJobServer] = []

    @registry.task
    async def enough() -> None:
        await servers[0].stop()

    servers.append(await serve(shutdown_timeout=0.05))
    await storage.enqueue(Job("enough"))
    await until(lambda: not servers[0].is_running)
    await no_threads_left()


async def test_neither_tasks_nor_threads_nor_a_row_are_left(storage, registry) -> None:
    registry.register("plain", threading.get_ident)
    before = threading.active_count()
    async with BackgroundJobServer(storage, registry, worker_count=5) as server:
        await run(storage, *(Job("plain") for _ in range(20)))
        assert threading.active_count() > before
        assert [row.server_id for row in await storage.list_servers()] == [server.server_id]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await storage.list_servers() == []
    await no_threads_left()


async def test_an_idle_server_stops_without_waiting_for_its_timeouts(serve) -> None:
    server = await serve(polling_interval=60, shutdown_timeout=60)
    began = monotonic()
    await server.stop()
    assert monotonic() - began < 10


async def test_a_server_that_stops_while_it_claims_does_not_wait_for_work_then(storage, serve) -> None:
    faults = Faulty(storage)
    faults.hold("claim")
    server = await serve(polling_interval=3600, shutdown_timeout=3600)
    await until(lambda: faults.calls["claim"])
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    faults.release("claim")
    async with asyncio.timeout(LONG):
        await stopping


async def test_leaving_the_block_by_an_error_stops_the_server_and_passes_the_error_on(storage, registry) -> None:
    with pytest.raises(KeyError):
        async with BackgroundJobServer(storage, registry) as server:
            raise KeyError
    assert not server.is_running


async def test_its_state_shows(storage, registry, held) -> None:
    server = BackgroundJobServer(storage, registry, server_name="mailer", shutdown_timeout=60)
    assert repr(server) == "BackgroundJobServer('mailer', stopped)"
    async with server:
        assert repr(server) == "BackgroundJobServer('mailer', running)"
        await storage.enqueue(Job("hold"))
        await until(lambda: held.started)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        assert repr(server) == "BackgroundJobServer('mailer', stopping)"
        held.go.set()
        await stopping
    assert repr(server) == "BackgroundJobServer('mailer', stopped)"
