"""One monitor sees servers of all kinds: those of this process and of others, each once, and none that is gone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic

import pytest
from msgspec.structs import replace

from qml_nb import BackgroundJobServer, Job, MemoryStorage, Storage, WorkerPool, open_storage
from qml_nb.load import synthetic_tasks
from qml_nb.measure import Monitor
from qml_nb.measure.audience import Audience
from qml_nb.server.broadcast import encode
from qml_nb.server.telemetry import PHASES, Snapshot
from qml_nb.servers import LocalServers
from qml_nb.storage.backend import TELEMETRY
from tests.versions import PROGRAMS

LONG = 20.0
ELSEWHERE = """
import asyncio, sys
from qml_nb import BackgroundJobServer, open_storage
from qml_nb.load import synthetic_tasks

async def main(url, name, slots):
    async with await open_storage(url) as storage:
        async with BackgroundJobServer(storage, synthetic_tasks(), server_name=name, worker_count=int(slots)):
            await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""


async def until(happens: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG):
        while not happens():
            await asyncio.sleep(0.005)


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that processes can share."""
    with LocalServers() as servers:
        yield servers.redis() if request.param == "redis" else servers.postgres(programs=PROGRAMS)


@pytest.fixture
async def storage(url: str) -> AsyncIterator[Storage]:
    """Our end of it."""
    async with await open_storage(url) as storage:
        yield storage


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a server in another process, which ends with its input."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(name: str, slots: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", ELSEWHERE, url, name, str(slots)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return processes[-1]

    yield run
    for process in processes:
        process.communicate(timeout=LONG)


def slots(monitor: Monitor) -> int:
    return monitor.samples[-1].slots if monitor.samples else -1


async def test_servers_of_other_processes_are_part_of_the_picture_until_they_are_gone(storage, start) -> None:
    leaving, dying = start("leaving", 3), start("dying", 5)
    with Monitor(storage) as monitor, Monitor(storage, elsewhere=False) as narrow:
        await until(lambda: slots(monitor) == 8)
        assert [server.server_name for server in monitor.servers] == ["dying", "leaving"]
        assert {server.pid for server in monitor.servers} == {leaving.pid, dying.pid}

        await storage.enqueue_many([Job("noop") for _ in range(200)])
        await storage.drained(timeout=LONG)
        await until(lambda: monitor._done == 200)
        assert sum(server.succeeded for server in monitor.servers) == 200
        assert any(sample.rate_done > 0 for sample in monitor.samples)

        leaving.communicate(timeout=LONG)
        await until(lambda: slots(monitor) == 5)
        dying.kill()
        await until(lambda: slots(monitor) == 0)
        assert monitor.servers == []
    assert {sample.slots for sample in narrow.samples} == {0}
    assert narrow.servers == []


async def test_a_server_that_is_watched_and_publishes_is_counted_once(storage, start) -> None:
    start("elsewhere", 2)
    pool = WorkerPool(storage, synthetic_tasks(), worker_count=3, telemetry_interval=0.05)
    with pool, Monitor(storage).watch(pool) as monitor:
        await until(lambda: slots(monitor) == 5)
        await storage.enqueue_many([Job("noop") for _ in range(500)])
        await storage.drained(timeout=LONG)
        await until(lambda: monitor._done == 500)
        many = len(monitor.samples)
        await until(lambda: len(monitor.samples) >= many + 5)
        assert monitor._done == 500
        assert slots(monitor) == 5


async def test_a_monitor_that_changes_its_storage_hears_the_other_one(storage, start) -> None:
    start("elsewhere", 2)
    async with MemoryStorage() as memory:
        with Monitor(memory) as monitor:
            await until(lambda: slots(monitor) == 0)
            monitor.storage = storage
            await until(lambda: slots(monitor) == 2)
            monitor.storage = memory
            await until(lambda: slots(monitor) == 0)
            assert monitor.servers == []


# -- each snapshot once, whatever comes on which way


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStorage]:
    async with MemoryStorage() as storage:
        yield storage


class Source:
    """Something to watch, as a pool whose servers are processes."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Snapshot], None]] = []

    def tell(self, snapshot: Snapshot) -> None:
        for listener in self.listeners:
            listener(snapshot)


def snapshot(name: str = "server#1", slots: int = 2, succeeded: int = 0) -> Snapshot:
    phases = {phase: {} for phase in PHASES} | {"total": {5: 1}}
    return Snapshot(name, 1e9, slots, 0, 0, succeeded, succeeded, 0, 0, 0, 0, phases, pid=1)


class Heard(list[tuple[Snapshot, Snapshot | None]]):
    def __call__(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        self.append((snapshot, before))


@pytest.fixture
async def heard(memory) -> AsyncIterator[tuple[Audience, Heard]]:
    """An audience that listens to the storage, and what it has heard."""
    audience = Audience(heard := Heard())
    listening = asyncio.create_task(audience.listen(memory))
    await until(lambda: memory.backend._inboxes.get(TELEMETRY))
    yield audience, heard
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def publish(storage: Storage, *snapshots: Snapshot) -> None:
    for each in snapshots:
        await storage.publish(TELEMETRY, encode(each))
    await asyncio.sleep(0.02)


async def test_each_comes_with_the_one_before_it(memory, heard) -> None:
    _, got = heard
    one, two, other = snapshot(succeeded=1), snapshot(succeeded=2), snapshot("server#2")
    await publish(memory, one, other, two)
    assert got == [(one, None), (other, None), (two, one)]


async def test_what_is_heard_directly_is_not_heard_from_elsewhere(memory, heard) -> None:
    audience, got = heard
    audience.watch(pool := Source())
    first, second, last = snapshot(succeeded=1), snapshot(succeeded=2), snapshot(slots=0, succeeded=2)
    await publish(memory, first)
    pool.tell(second)
    await publish(memory, second)
    pool.tell(last)
    await publish(memory, last)
    assert got == [(first, None), (second, first), (last, second)]
    assert audience.servers == []

    audience.unwatch(pool)
    assert pool.listeners == []
    await publish(memory, second)
    assert got[-1] == (second, None)


async def test_a_server_of_this_process_is_heard_only_if_it_is_watched(memory, heard) -> None:
    audience, got = heard
    async with BackgroundJobServer(memory, synthetic_tasks(), telemetry_interval=0.02) as server:
        inbox = await memory.subscribe(TELEMETRY)
        for _ in range(3):
            await anext(inbox)
        await inbox.aclose()
        assert got == []
        audience.watch(server)
        await until(lambda: audience.servers)


async def test_what_a_source_still_tells_after_it_was_left_is_not_heard(heard) -> None:
    audience, got = heard
    audience.watch(pool := Source())
    [feed] = pool.listeners
    audience.unwatch(pool)
    feed(snapshot())
    assert got == []


async def test_watching_twice_is_watching_once(heard) -> None:
    audience, got = heard
    audience.watch(pool := Source())
    audience.watch(pool)
    pool.tell(snapshot())
    assert len(got) == 1


async def test_what_is_no_snapshot_is_not_heard(memory, heard) -> None:
    _, got = heard
    await memory.publish(TELEMETRY, b"nonsense")
    await publish(memory, snapshot())
    assert len(got) == 1


async def test_a_slow_server_is_there_as_long_as_it_keeps_its_interval(memory, heard, monkeypatch) -> None:
    audience, _ = heard
    slow = replace(snapshot("slow"), interval=5.0)
    await publish(memory, slow, snapshot("fast"), replace(snapshot("never again"), interval=1e10))
    begun = monotonic()
    for passed, there in (
        (2, ["fast", "never again", "slow"]),
        (4, ["never again", "slow"]),
        (16, ["never again"]),
        (61, []),
    ):
        monkeypatch.setattr("qml_nb.measure.audience.monotonic", lambda ahead=passed: begun + ahead)
        assert [server.server_id for server in audience.servers] == there


async def test_a_flood_of_invented_servers_has_an_end(memory, heard, monkeypatch) -> None:
    audience, got = heard
    monkeypatch.setattr("qml_nb.measure.audience._MOST_SERVERS", 50)
    await publish(memory, *(snapshot(f"server#{number}") for number in range(80)))
    assert len(audience.servers) == len(got) == 50
    await publish(memory, snapshot("server#7"))
    assert len(got) == 51
