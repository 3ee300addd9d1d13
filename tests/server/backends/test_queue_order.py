"""Strict and weighted orders of queues, on jobs of a real storage."""

from __future__ import annotations

from collections import Counter

import pytest

from qml_nb import Job
from tests.server.waiting import LONG


@pytest.fixture
def ran(registry) -> list[str]:
    """The queues of the jobs that ran, in order."""
    ran: list[str] = []

    @registry.task
    async def note(queue: str) -> None:
        ran.append(queue)

    return ran


async def test_strict(storage, serve, ran) -> None:
    jobs = [
        Job("note", [queue], queue=queue, priority=ord(queue) % 5 * number) for number in range(30) for queue in "cab"
    ]
    await storage.enqueue_many(jobs)
    server = await serve(queues=["b", "c", "a"], queue_order="strict", worker_count=4)
    await server.drained(timeout=LONG)
    assert ran == ["b"] * 30 + ["c"] * 30 + ["a"] * 30


async def test_weighted(storage, serve, ran) -> None:
    weights = {"critical": 6, "normal": 3, "bulk": 1}
    await storage.enqueue_many([Job("note", [queue], queue=queue) for _ in range(800) for queue in weights])
    server = await serve(queues=weights, worker_count=2)
    await server.drained(timeout=LONG)
    together = Counter(ran[:1_200])  # until then no queue is empty
    for queue, weight in weights.items():
        assert together[queue] == pytest.approx(1_200 * weight / 10, abs=2 * 64)
    assert Counter(ran) == dict.fromkeys(weights, 800)
