"""What Prometheus scrapes: exact, bounded, and there while the storage is away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qml_nb import BackgroundJobServer, Job, MemoryStorage, RedisStorage, RetryPolicy, WorkerPool, WorkerRegistry
from qml_nb.errors import InvalidValue, PackageMissing
from qml_nb.load import synthetic_tasks
from qml_nb.metrics import BUCKETS, Metrics
from qml_nb.server.broadcast import encode
from qml_nb.server.telemetry import PHASES, Snapshot, TaskCount, bucket_middle
from qml_nb.storage.backend import TELEMETRY

LONG = 20.0
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: bytes) -> Found:
    """The samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: Found, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


async def scrape(port: int) -> Found:
    def get() -> bytes:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG) as answer:
            return answer.read()

    return parsed(await asyncio.to_thread(get))


@pytest.fixture
async def storage() -> AsyncIterator[MemoryStorage]:
    async with MemoryStorage() as storage:
        yield storage


@pytest.fixture
def metrics(storage) -> Iterator[Metrics]:
    with Metrics(storage) as metrics:
        yield metrics


async def until(happens) -> None:
    async with asyncio.timeout(LONG):
        while not await happens():
            await asyncio.sleep(0.005)


async def test_a_scrape_says_what_is_stored_and_what_servers_did(storage, metrics) -> None:
    registry, port = WorkerRegistry(), metrics.serve(0)

    @registry.task
    async def work(kind: str) -> None:
        if kind != "good":
            raise ValueError(kind)

    async with BackgroundJobServer(
        storage, registry, worker_count=3, queues=["q"], retry=RetryPolicy.fixed(0), scheduler_poll_interval=0.01
    ) as server:
        metrics.watch(server)
        kinds = {"good": (7, 0), "bad": (2, 0), "bad twice": (1, 1)}
        await storage.enqueue_many(
            [Job("work", [k], queue="q", max_retries=r) for k, (many, r) in kinds.items() for _ in range(many)]
        )
        await storage.enqueue_many([Job("work", queue="unserved") for _ in range(4)])
        await storage.drained("q", timeout=LONG)

        async def told() -> bool:
            found = await scrape(port)
            return value(found, "qml_job_run_seconds_count", queue="q", method="work") == 11

        await until(told)
        found = await scrape(port)
        assert value(found, "qml_slots", server=server.server_id) == 3
        assert value(found, "qml_busy_slots", server=server.server_id) == 0
    assert value(found, "qml_storage_up") == 1
    assert value(found, "qml_jobs_enqueued_total") == 14
    for state, many in {"succeeded": 7, "failed": 3, "retried": 1}.items():
        assert value(found, "qml_jobs_processed_total", queue="q", method="work", state=state) == many
    for state, many in {"succeeded": 7, "failed": 3, "enqueued": 0, "processing": 0}.items():
        assert value(found, "qml_jobs", queue="q", state=state) == many
    assert value(found, "qml_jobs", queue="unserved", state="enqueued") == 4
    for phase in PHASES:
        assert value(found, "qml_job_phase_seconds_count", phase=phase) == 11
        assert value(found, "qml_job_phase_seconds_bucket", phase=phase, le="+Inf") == 11
    assert value(found, "qml_slots", server=server.server_id) == 3
    assert value(await scrape(port), "qml_slots", server=server.server_id) is None


class Source:
    """Something to watch."""

    def __init__(self) -> None:
        self.listeners = []

    def tell(self, tasks: list[TaskCount] = (), **phases: dict[int, int]) -> None:
        empty = {phase: {} for phase in PHASES}
        shot = Snapshot("server#1", 1e9, 2, 1, 0, 0, 0, 0, 0, 0, 0, empty | phases, tuple(tasks), pid=1)
        for listener in self.listeners:
            listener(shot)


async def test_durations_fall_into_the_buckets_of_the_guide(metrics) -> None:
    metrics.watch(source := Source())
    source.tell(run={100: 2, 2_000: 3})
    source.tell(run={100: 1, 6_000: 1})
    found = parsed(await metrics.text())
    held = {100: 3, 2_000: 3, 6_000: 1}
    assert len(BUCKETS) == 13
    for bound in BUCKETS:
        expected = sum(many for step, many in held.items() if bucket_middle(step) <= bound)
        assert value(found, "qml_job_phase_seconds_bucket", phase="run", le=str(bound)) == expected
    total = sum(many * bucket_middle(step) for step, many in held.items())
    assert value(found, "qml_job_phase_seconds_sum", phase="run") == pytest.approx(total)
    assert value(found, "qml_job_phase_seconds_count", phase="run") == 7


async def test_names_are_bounded_and_the_rest_is_other(storage) -> None:
    await storage.enqueue_many([Job("work", queue=f"q{number}") for number in range(9)])
    with Metrics(storage, most=5) as metrics:
        metrics.watch(source := Source())
        source.tell([TaskCount(f"q{number}", f"m{number}", 1, 0, 0, 10) for number in range(9)])
        found = parsed(await metrics.text())
    assert value(found, "qml_jobs", queue="other", state="enqueued") == 4
    assert value(found, "qml_jobs_processed_total", queue="other", method="other", state="succeeded") == 4
    assert len({dict(labels)["queue"] for name, labels in found if name == "qml_jobs"}) == 6
    assert len({labels for name, labels in found if name == "qml_job_run_seconds_count"}) == 6


async def test_names_may_have_any_characters(storage, metrics) -> None:
    odd = 'a"b\\c\n{}ü😀'
    await storage.enqueue(Job("work", queue=odd))
    assert value(parsed(await metrics.text()), "qml_jobs", queue=odd, state="enqueued") == 1


async def test_a_source_that_is_no_longer_watched_does_not_count(metrics) -> None:
    metrics.watch(source := Source())
    source.tell([TaskCount("q", "m", 1)])
    metrics.unwatch(source)
    source.tell([TaskCount("q", "m", 1)])
    found = parsed(await metrics.text())
    assert value(found, "qml_jobs_processed_total", queue="q", method="m", state="succeeded") == 1
    assert value(found, "qml_slots", server="server#1") is None


async def test_servers_of_other_processes_count_if_that_is_asked_for(storage) -> None:
    message = encode(Snapshot("server#1", 1e9, 2, 1, 0, 0, 0, 0, 0, 0, 0, tasks=(TaskCount("q", "m", 1),), pid=1))
    with Metrics(storage, elsewhere=True) as wide, Metrics(storage) as narrow:
        async with asyncio.timeout(LONG):
            while not storage.backend._inboxes.get(TELEMETRY):
                await asyncio.sleep(0.005)
        await storage.publish(TELEMETRY, message)

        async def counted() -> bool:
            return value(parsed(await wide.text()), "qml_slots", server="server#1") == 2

        await until(counted)
        found = parsed(await narrow.text())
        assert value(found, "qml_jobs_processed_total", queue="q", method="m", state="succeeded") is None


async def test_in_a_thread_with_an_event_loop_a_scrape_waits_for_nobody(storage, metrics, monkeypatch) -> None:
    await storage.enqueue(Job("work"))
    await metrics.text()

    async def never(queue: str | None = None) -> None:
        await asyncio.sleep(LONG)

    monkeypatch.setattr(storage, "get_queue_counts", never)
    families = {family.name: family for family in metrics.collect()}
    assert [sample.value for sample in families["qml_jobs"].samples if sample.labels["state"] == "enqueued"] == [1]


async def test_registering_asks_nobody() -> None:
    from prometheus_client import CollectorRegistry

    storage = MemoryStorage()
    await storage.close()
    registry = CollectorRegistry(auto_describe=True)
    registry.register(metrics := Metrics(storage))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Metrics(storage))
    assert metrics._counts is None


@pytest.mark.parametrize("harm", ["freeze", "kill"])
async def test_a_storage_that_is_away_leaves_the_rest_of_the_scrape(server, harm) -> None:
    async with RedisStorage(server.url) as storage:
        with WorkerPool(storage, synthetic_tasks(), worker_count=4) as pool, Metrics(storage).watch(pool) as metrics:
            port = metrics.serve(0)
            await storage.enqueue(Job("noop", queue="elsewhere"))

            async def up() -> bool:
                found = await scrape(port)
                return bool(value(found, "qml_storage_up")) and any(name == "qml_slots" for name, _ in found)

            await until(up)
            getattr(server, harm)()
            found = await scrape(port)
            assert value(found, "qml_storage_up") == 0
            assert value(found, "qml_jobs", queue="elsewhere", state="enqueued") is None
            assert any(name == "qml_slots" for name, _ in found)
            if harm == "freeze":
                server.thaw()
            else:
                server.restart()
            await until(up)


async def test_a_closed_one_frees_its_port_and_can_serve_again(metrics) -> None:
    port = metrics.serve(0)
    with pytest.raises(OSError, match="use"):
        metrics.serve(port)
    metrics.close()
    assert metrics.serve(port) == port
    assert value(await scrape(port), "qml_storage_up") == 1


@pytest.mark.parametrize("options", [{"most": 0}, {"elsewhere": "yes"}])
def test_bad_options_are_refused(options) -> None:
    with pytest.raises(InvalidValue):
        Metrics(MemoryStorage(), **options)


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import qml_nb.metrics"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "PackageMissing: prometheus-client is not installed; try: pip install 'qml-nb[metrics]'" in done.stderr
    assert issubclass(PackageMissing, ImportError)
