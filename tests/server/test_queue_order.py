"""Which queue a server takes from first: by priority over all of them, in strict order, or by weights."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from qml_nb import Job
from tests.server.waiting import LONG, until


@pytest.fixture
def ran(registry) -> list[str]:
    """The queues of the jobs that ran, in order."""
    ran: list[str] = []

    @registry.task
    async def note(queue: str) -> None:
        ran.append(queue)

    return ran


def notes(queue: str, many: int, **options) -> list[Job]:
    return [Job("note", [queue], queue=queue, **options) for _ in range(many)]


async def test_strict_takes_from_a_queue_only_when_those_before_it_are_empty(storage, serve, ran) -> None:
    await storage.enqueue_many([*notes("c", 20, priority=9), *notes("b", 20), *notes("a", 20, priority=-9)])
    server = await serve(queues=["a", "b", "c"], queue_order="strict", worker_count=3, fetch_batch_size=7)
    await server.drained(timeout=LONG)
    assert ran == ["a"] * 20 + ["b"] * 20 + ["c"] * 20


async def test_strict_goes_back_to_the_first_queue_as_soon_as_that_has_jobs_again(
    storage, registry, serve, ran
) -> None:
    go = asyncio.Event()

    @registry.task
    async def hold() -> None:
        await go.wait()

    await storage.enqueue_many([Job("hold", queue="b"), *notes("b", 20)])
    server = await serve(queues=["a", "b"], queue_order="strict", worker_count=1, fetch_batch_size=1)
    await until(lambda: server.snapshot().busy)
    await storage.enqueue_many(notes("a", 5))
    go.set()
    await server.drained(timeout=LONG)
    assert ran == ["a"] * 5 + ["b"] * 20


@pytest.mark.parametrize("batch", [1, 10])
async def test_weights_are_the_shares_of_what_is_handed_out_while_all_have_jobs(storage, serve, ran, batch) -> None:
    queues = {"critical": 6, "normal": 3, "bulk": 1}
    await storage.enqueue_many([job for queue in reversed(queues) for job in notes(queue, 1_000)])
    server = await serve(queues=queues, worker_count=1, fetch_batch_size=batch)
    await server.drained(timeout=LONG)
    together = Counter(ran[:1_500])  # 900, 450 and 150: until then no queue is empty
    for queue, weight in queues.items():
        assert together[queue] == pytest.approx(1_500 * weight / 10, abs=2 * 64)
    assert Counter(ran) == dict.fromkeys(queues, 1_000)


async def test_the_share_of_an_idle_queue_goes_to_the_others(storage, serve, ran) -> None:
    await storage.enqueue_many([*notes("bulk", 900), *notes("normal", 900)])
    server = await serve(queues={"critical": 60, "normal": 2, "bulk": 1}, worker_count=1)
    await server.drained(timeout=LONG)
    together = Counter(ran[:1_200])
    assert together["normal"] == pytest.approx(800, abs=2 * 64)


async def test_within_a_queue_with_a_weight_priority_counts(storage, registry, serve) -> None:
    ran: list[int] = []
    registry.register("number", ran.append)
    await storage.enqueue_many([Job("number", [n], queue="a", priority=n % 4) for n in range(12)])
    server = await serve(queues={"a": 1, "b": 5}, worker_count=1)
    await server.drained(timeout=LONG)
    assert ran == [3, 7, 11, 2, 6, 10, 1, 5, 9, 0, 4, 8]


async def test_a_server_with_weights_is_woken_by_each_of_its_queues(storage, serve, ran) -> None:
    server = await serve(queues={"a": 1, "b": 5}, polling_interval=60)
    for queue in ("a", "b", "a"):
        await until(lambda: server._parked)
        await storage.enqueue_many(notes(queue, 1))
        await server.drained(timeout=LONG)
    assert ran == ["a", "b", "a"]
    assert [info.queues for info in await storage.list_servers()] == [("a", "b")]
