"""One claim for all idle slots, and a few jobs more when `fetch_batch_size` says so."""

from __future__ import annotations

import asyncio

from qml_nb import Job, JobState, Storage, WorkerRegistry
from tests.server.conftest import Serve
from tests.server.faults import Faulty
from tests.server.waiting import full_house, run, until


class Held:
    """Jobs that run until `go` is set."""

    def __init__(self, registry: WorkerRegistry) -> None:
        self.go = asyncio.Event()
        self.running: list[int] = []
        registry.register("hold", self._hold)

    async def _hold(self, number: int) -> None:
        self.running.append(number)
        await self.go.wait()


async def put(storage: Storage, many: int) -> list[Job]:
    jobs = [Job("hold", [number]) for number in range(many)]
    await storage.enqueue_many(jobs)
    return jobs


async def test_a_claim_takes_as_many_jobs_as_fetch_batch_size_says(storage, registry, serve: Serve) -> None:
    held = Held(registry)
    await put(storage, 20)
    server = await serve(worker_count=2, fetch_batch_size=6)
    await until(lambda: len(held.running) == 2)
    shot = server.snapshot()
    assert (shot.claimed, shot.busy, shot.buffered) == (6, 2, 4)
    held.go.set()


async def test_a_claim_takes_no_more_than_the_idle_slots_if_fetch_batch_size_is_less(storage, registry, serve) -> None:
    held = Held(registry)
    await put(storage, 20)
    server = await serve(worker_count=2, fetch_batch_size=1)
    await until(lambda: len(held.running) == 2)
    shot = server.snapshot()
    assert (shot.claimed, shot.busy, shot.buffered) == (2, 2, 0)
    held.go.set()


async def test_one_claim_is_for_all_idle_slots(storage, registry, serve) -> None:
    held = Held(registry)
    limits: list[int] = []
    claim = storage.backend.claim

    async def count(worker, queues, limit, lease, **now):
        limits.append(limit)
        return await claim(worker, queues, limit, lease, **now)

    storage.backend.claim = count
    await put(storage, 50)
    await serve(worker_count=50, fetch_batch_size=1)
    await until(lambda: len(held.running) == 50)
    assert limits == [50]
    held.go.set()


async def test_jobs_start_in_order_of_priority_then_age(storage, registry, serve) -> None:
    held = Held(registry)
    held.go.set()
    await storage.enqueue_many([Job("hold", [number], priority=number % 3) for number in range(9)])
    server = await serve(worker_count=1)
    await server.drained(timeout=20)
    assert held.running == [2, 5, 8, 1, 4, 7, 0, 3, 6]


async def test_what_waits_inside_the_server_starts_before_more_is_claimed(storage, registry, serve) -> None:
    held = Held(registry)
    await put(storage, 8)
    server = await serve(worker_count=2, fetch_batch_size=4)
    await until(lambda: len(held.running) == 2)
    await asyncio.sleep(0)
    assert server.snapshot().claimed == 4
    held.go.set()
    await server.drained(timeout=20)
    assert held.running == list(range(8))


async def test_no_job_is_claimed_while_all_slots_are_busy(storage, registry, serve) -> None:
    held = Held(registry)
    await put(storage, 2)
    server = await serve(worker_count=2, fetch_batch_size=1, polling_interval=0.01)
    await until(lambda: len(held.running) == 2)
    claims = 0

    async def count(*_, **__):
        nonlocal claims
        claims += 1
        return []

    claim, storage.backend.claim = storage.backend.claim, count
    await put(storage, 2)
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert claims == 0
    storage.backend.claim = claim
    held.go.set()
    await server.drained(timeout=20)
    await full_house(server, 2)


async def test_jobs_that_find_no_idle_slot_go_back_for_a_server_that_has_one(storage, registry, serve) -> None:
    held = Held(registry)
    await put(storage, 6)
    first = await serve(worker_count=2, fetch_batch_size=6)
    await until(lambda: len(held.running) == 2)
    await serve(worker_count=4, fetch_batch_size=1)
    await until(lambda: len(held.running) == 6)
    shot = first.snapshot()
    assert (shot.claimed, shot.busy, shot.buffered, shot.handed_back) == (6, 2, 0, 4)
    held.go.set()
    await first.drained(timeout=20)
    assert [job.attempt for job in await storage.list()] == [1] * 6


async def test_jobs_stay_while_slots_become_idle_now_and_then(storage, registry, serve, monkeypatch) -> None:
    monkeypatch.setattr("qml_nb.server.slots.PATIENCE", 0.5)

    async def nap() -> None:
        await asyncio.sleep(0.1)

    registry.register("nap", nap)
    await storage.enqueue_many(Job("nap") for _ in range(12))
    server = await serve(worker_count=1, fetch_batch_size=12)
    await server.drained(timeout=20)
    assert server.snapshot().handed_back == 0


async def test_outcomes_of_jobs_that_end_together_are_written_together(storage, registry, serve) -> None:
    faults, barrier = Faulty(storage), asyncio.Barrier(50)
    registry.register("meet", barrier.wait)
    server = await serve(worker_count=50)
    for job in await run(storage, *(Job("meet") for _ in range(50))):
        assert job.state is JobState.SUCCEEDED
    await until(lambda: server.snapshot().succeeded == 50)
    assert faults.calls["settle"] < 10  # not one for each
