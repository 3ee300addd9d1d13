"""How many jobs a claim asks for: with a clock that stands still between claims, and on a storage that is far away."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from qml_nb import BackgroundJobServer, Job, MemoryStorage, WorkerRegistry
from qml_nb.server import demand as module
from qml_nb.server.demand import MOST, Demand

MS = 1_000_000


class Claims:
    """Slots, a clock, and claims that take as long as one says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, idle: int, count: int, least: int, ahead: bool) -> None:
        self.now = 1_000 * MS
        monkeypatch.setattr(module, "perf_counter_ns", lambda: self.now)
        self.slots: Any = SimpleNamespace(idle=idle, count=count, buffer=deque())
        self.demand = Demand(self.slots, least, ahead=ahead)

    def claim(self, jobs: int, *, takes: float, then: float = 0.0) -> None:
        self.demand.asks()
        self.now += int(takes * MS)
        self.demand.gets(jobs)
        self.now += int(then * MS)


@pytest.fixture
def claims(monkeypatch):
    def make(*, idle: int = 100, count: int = 100, least: int = 10, ahead: bool = True) -> Claims:
        return Claims(monkeypatch, idle=idle, count=count, least=least, ahead=ahead)

    return make


def test_the_first_claim_is_for_the_idle_slots_or_for_fetch_batch_size(claims) -> None:
    assert claims(idle=40).demand.jobs() == 40
    assert claims(idle=4).demand.jobs() == 10
    assert claims(idle=0).demand.jobs() == 0


def test_nothing_is_asked_for_while_jobs_wait_inside(claims) -> None:
    room = claims()
    room.slots.buffer.append("a job")
    assert room.demand.jobs() == 0


def test_of_quick_jobs_so_many_are_asked_for_as_start_in_the_time_of_a_trip(claims) -> None:
    room = claims()
    room.claim(100, takes=1, then=3)
    room.claim(100, takes=1, then=3)  # 100 jobs started in 4 ms: 25 in a trip
    assert room.demand.jobs() == 125
    room.slots.idle = 0
    assert room.demand.jobs() == 25


@pytest.mark.parametrize(
    ("options", "jobs_take"),
    [({}, 100), ({"least": 1}, 0), ({"ahead": False}, 0)],
    ids=["jobs take long", "a claim asks for one job", "a claim takes no trip"],
)
def test_nothing_is_claimed_before_a_slot_idles_if(claims, options, jobs_take) -> None:
    room = claims(**options)
    for _ in range(3):
        room.claim(100, takes=1, then=jobs_take)
    room.slots.idle = 0
    assert room.demand.jobs() == 0


@pytest.mark.parametrize(("count", "most"), [(100, 100), (3, MOST)], ids=["many slots", "few slots"])
def test_no_more_is_claimed_ahead_than_there_are_slots_or_a_few_dozen(claims, count, most) -> None:
    room = claims(idle=0, count=count)
    room.claim(1_000, takes=5)
    room.claim(1_000, takes=5)
    assert room.demand.jobs() == most


@pytest.mark.parametrize("ahead", [True, False])
def test_jobs_that_start_within_a_quarter_of_a_millisecond_are_claimed_together(claims, ahead) -> None:
    room = claims(idle=1, count=1, ahead=ahead)
    room.claim(10, takes=0.01, then=0.09)  # ten jobs started in 0.1 ms
    room.claim(10, takes=0.01)
    assert room.demand.jobs() == 1 + 25


@pytest.mark.parametrize(("least", "then"), [(1, 0.09), (10, 10)], ids=["a claim asks for one job", "jobs take long"])
def test_else_only_as_many_as_the_configuration_says(claims, least, then) -> None:
    room = claims(idle=1, count=1, least=least, ahead=False)
    room.claim(10, takes=0.01, then=then)
    room.claim(10, takes=0.01, then=then)
    assert room.demand.jobs() == least


def test_an_empty_queue_ends_it(claims) -> None:
    room = claims()
    room.claim(100, takes=1)
    room.claim(100, takes=1)
    assert room.demand.jobs() == 200
    room.claim(0, takes=1)
    assert room.demand.jobs() == 100


def test_two_claims_at_the_same_instant_of_a_coarse_clock(claims) -> None:
    room = claims()
    room.claim(5, takes=0)
    room.claim(5, takes=0)
    assert room.demand.jobs() == 200


async def nap() -> None:
    await asyncio.sleep(0.002)


async def drained_from_afar(fetch_batch_size: int) -> list[tuple[int, int]]:
    """Drain 200 jobs of 2 ms through 4 slots from a storage 20 ms away; return (limit, busy slots) of each claim."""
    storage, registry = MemoryStorage(), WorkerRegistry()
    registry.register("nap", nap)
    await storage.enqueue_many(Job("nap") for _ in range(200))
    claim, asked = storage.backend.claim, []

    async def from_afar(worker, queues, limit, lease, **now):
        asked.append((limit, server.snapshot().busy))
        await asyncio.sleep(0.02)
        return await claim(worker, queues, limit, lease, **now)

    storage.backend.claim, storage.backend.round_trip = from_afar, True
    server = BackgroundJobServer(storage, registry, worker_count=4, fetch_batch_size=fetch_batch_size)
    async with server:
        await server.drained(timeout=60)
    return asked


async def test_a_server_far_from_its_storage_works_on_while_it_claims() -> None:
    assert max(busy for _, busy in await drained_from_afar(2)) == 4


async def test_with_fetch_batch_size_1_it_claims_for_idle_slots_only() -> None:
    assert all(limit + busy <= 4 for limit, busy in await drained_from_afar(1))
