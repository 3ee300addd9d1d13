"""A claim holds as long as its server lives, and no longer: what lost its lease is cancelled, its answer refused."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from qml_nb import BackgroundJobServer, Job, JobState, MemoryStorage, WorkerRegistry
from qml_nb.states import LOST_LEASE
from tests.server.waiting import LONG, ended, full_house, in_state, run, until

LEASE = 0.3


class Held:
    """A job that runs until it is released, and notes how it went."""

    def __init__(self, registry: WorkerRegistry) -> None:
        self.go = asyncio.Event()
        self.started: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        registry.register("hold", self._hold)

    async def _hold(self, name: str) -> str:
        self.started[name] += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled[name] += 1
            raise
        return name


@pytest.fixture
def held(registry) -> Held:
    return Held(registry)


async def test_the_lease_is_renewed_while_a_job_runs(storage, registry, serve, held) -> None:
    server = await serve(lease=LEASE, scheduler_poll_interval=0.02)
    job = Job("hold", ["long"])
    await storage.enqueue(job)
    first = await in_state(storage, job, JobState.PROCESSING)
    async with asyncio.timeout(LONG):
        while (now := await storage.get(job.id)).lease_ts < first.lease_ts + 3 * LEASE:
            await asyncio.sleep(0.01)
    assert (now.attempt, now.started_ts) == (1, first.started_ts)
    held.go.set()
    [job] = await ended(storage, job)
    assert (job.result, held.started["long"]) == ("long", 1)
    assert server.snapshot().refused == 0


async def test_the_lease_is_renewed_while_a_job_waits_for_a_slot(storage, registry, serve, held) -> None:
    await serve(worker_count=1, fetch_batch_size=2, lease=LEASE, scheduler_poll_interval=0.02)
    jobs = [Job("hold", ["first"]), Job("hold", ["second"])]
    await storage.enqueue_many(jobs)
    first = await in_state(storage, jobs[1], JobState.PROCESSING)
    async with asyncio.timeout(LONG):
        while (await storage.get(first.id)).lease_ts < first.lease_ts + 3 * LEASE:
            await asyncio.sleep(0.01)
    assert not held.started["second"]
    held.go.set()
    for job in await ended(storage, *jobs):
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_job_that_was_cancelled_or_deleted_is_stopped(storage, registry, serve, held, how) -> None:
    server = await serve(worker_count=1, lease=LEASE)
    job = Job("hold", ["unwanted"])
    await storage.enqueue(job)
    await until(lambda: held.started["unwanted"])
    assert await getattr(storage, how)(job.id)
    await until(lambda: held.cancelled["unwanted"])
    await full_house(server, 1)
    stored = await storage.get(job.id)
    assert stored is None if how == "delete" else stored.state is JobState.DELETED
    assert server.snapshot().failed == 0


async def test_a_cancelled_job_that_waits_for_a_slot_never_starts(storage, registry, serve, held) -> None:
    server = await serve(worker_count=1, fetch_batch_size=2, lease=LEASE)
    jobs = [Job("hold", ["first"]), Job("hold", ["second"])]
    await storage.enqueue_many(jobs)
    await until(lambda: held.started["first"] and server.snapshot().buffered)
    await storage.cancel(jobs[1].id)
    await until(lambda: not server.snapshot().buffered)
    held.go.set()
    await ended(storage, *jobs)
    assert not held.started["second"]
    await full_house(server, 1)


async def test_an_answer_without_a_lease_is_refused_and_counted(storage, registry, serve, held) -> None:
    server = await serve(worker_count=1, lease=60)
    job = Job("hold", ["late"])
    await storage.enqueue(job)
    await until(lambda: held.started["late"])
    await storage.cancel(job.id)
    held.go.set()
    await until(lambda: server.snapshot().refused)
    assert (await storage.get(job.id)).state is JobState.DELETED
    shot = server.snapshot()
    assert (shot.refused, shot.succeeded, shot.claimed) == (1, 0, 1)


async def test_a_job_that_another_worker_has_claimed_meanwhile_is_left_to_it(storage, registry, serve, held) -> None:
    server = await serve(worker_count=1, lease=60)
    job = Job("hold", ["taken"])
    await storage.enqueue(job)
    await until(lambda: held.started["taken"])
    mine = await storage.get(job.id)
    await storage.pause_queue("default")
    await storage.sweep(now=mine.lease_until.replace(year=2100))
    await storage.resume_queue("default")
    taken = await storage.fetch_and_lock_job("another worker")
    assert (taken.id, taken.attempt) == (job.id, 2)
    held.go.set()
    await until(lambda: server.snapshot().refused)
    assert await storage.complete(taken, "from the other one")
    assert (await storage.get(job.id)).result == "from the other one"


async def test_a_job_that_lost_its_lease_and_ignores_it_does_not_keep_its_slot(storage, registry, serve) -> None:
    release, started, ends = asyncio.Event(), asyncio.Event(), []

    @registry.task
    async def ignore() -> str:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        ends.append(1)
        return "done all the same"

    server = await serve(worker_count=1, lease=LEASE, job_timeout=None)
    job = Job("ignore")
    await storage.enqueue(job)
    await started.wait()
    await storage.cancel(job.id)
    try:
        await full_house(server, 1)
    finally:
        release.set()
    await until(lambda: ends)
    assert (await storage.get(job.id)).state is JobState.DELETED


def start_and_die(storage: MemoryStorage, registry: WorkerRegistry, started: asyncio.Event, **options: object) -> None:
    """Run a server in a loop of its own, and end that loop around it once a job has started."""

    async def live() -> None:
        server = BackgroundJobServer(storage, registry, server_name="dead", **options)
        await server.start()
        await until(started.is_set)

    asyncio.run(live())


async def test_a_dead_server_loses_its_jobs_to_another_after_the_lease(storage, registry, serve) -> None:
    started, runs = asyncio.Event(), Counter()

    @registry.task
    async def work(number: int) -> str:
        runs[number] += 1
        started.set()
        if runs[number] == 1 and number < 3:
            await asyncio.sleep(3600)
        return "done"

    jobs = [Job("work", [number]) for number in range(6)]
    await storage.enqueue_many(jobs)
    await asyncio.to_thread(start_and_die, storage, registry, started, worker_count=3, fetch_batch_size=6, lease=LEASE)
    assert (await storage.get_job_counts())[JobState.PROCESSING] == 6
    server = await serve(scheduler_poll_interval=0.02)
    for job in await ended(storage, *jobs):
        assert (job.state, job.attempt, job.result) == (JobState.SUCCEEDED, 2, "done")
        assert job.worker_id == server.server_id
    assert all(runs[number] == 2 for number in range(3))
    await until(lambda: server.snapshot().succeeded == 6)


async def test_a_server_that_was_cut_off_for_a_while_can_not_answer_for_jobs_that_it_lost(
    storage, registry, serve, held
) -> None:
    cut_off = await serve(server_name="cut off", worker_count=1, lease=LEASE)
    job = Job("hold", ["split"])
    await storage.enqueue(job)
    await until(lambda: held.started["split"])

    async def lost(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    cut_off._renew, renew = lost, cut_off._renew
    for task in cut_off._tasks:
        task.cancel()
    other = await serve(server_name="other", worker_count=1, lease=LEASE, scheduler_poll_interval=0.02)
    await until(lambda: held.started["split"] == 2)
    held.go.set()
    [job] = await ended(storage, job)
    assert (job.worker_id, job.attempt) == (other.server_id, 2)
    await until(lambda: cut_off.snapshot().refused == 1)
    await until(lambda: other.snapshot().succeeded == 1)
    assert cut_off.snapshot().succeeded == 0
    cut_off._renew = renew


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 3), (4, 5)])
async def test_a_job_that_kills_its_server_again_and_again_ends_failed(
    storage, registry, serve, max_retries, attempts
) -> None:
    deaths = 0
    started = asyncio.Event()

    @registry.task
    async def poison() -> None:
        nonlocal deaths
        deaths += 1
        started.set()
        await asyncio.sleep(3600)

    job = Job("poison", max_retries=max_retries)
    await storage.enqueue(job)
    for _ in range(attempts):
        started.clear()
        await asyncio.to_thread(
            start_and_die, storage, registry, started, lease=0.05, scheduler_poll_interval=0.01, polling_interval=0.05
        )
    await serve(scheduler_poll_interval=0.01)
    [job] = await ended(storage, job)
    assert (job.state, job.error, job.attempt, deaths) == (JobState.FAILED, LOST_LEASE, attempts, attempts)


async def test_two_servers_run_each_job_once(storage, registry, serve) -> None:
    runs: Counter[int] = Counter()

    @registry.task
    async def work(number: int) -> None:
        runs[number] += 1
        await asyncio.sleep(0)

    first, second = await serve(worker_count=5, lease=LEASE), await serve(worker_count=5, lease=LEASE)
    await run(storage, *(Job("work", [number]) for number in range(500)))
    assert set(runs.values()) == {1}
    assert len(runs) == 500
    await until(lambda: first.snapshot().succeeded + second.snapshot().succeeded == 500)
