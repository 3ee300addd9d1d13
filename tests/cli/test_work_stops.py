"""`qml-nb work` on real servers, told to stop in every way that there is: no job is lost, and none runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import pytest

from qml_nb import Job, JobState
from tests.cli.workers import counted, counts, until

RUNNING, PREFETCHED = 100, 400


async def test_what_was_prefetched_goes_back_at_once_and_what_runs_may_end(address, storage, place) -> None:
    jobs = [Job("hold", [number]) for number in range(RUNNING + PREFETCHED)]
    await storage.enqueue_many(jobs)
    many = ("--workers", str(RUNNING), "--fetch-batch-size", str(len(jobs)))
    worker = place.work(address.url, *address.words, *many)
    await until(lambda: len(place.noted("began")) == RUNNING)
    await until(counted(storage, processing=RUNNING + PREFETCHED))
    worker.tell()
    await until(counted(storage, processing=RUNNING, enqueued=PREFETCHED))
    assert worker.is_alive
    back = await storage.list("enqueued", limit=PREFETCHED)
    assert {(job.attempt, job.worker_id) for job in back} == {(0, None)}
    place.go()
    assert worker.status() == 0, worker.said
    assert await counts(storage) == {"succeeded": RUNNING, "enqueued": PREFETCHED}
    assert f"{RUNNING} succeeded" in worker.said
    assert f"{PREFETCHED} handed back" in worker.said

    other = place.work(address.url, *address.words, *many)
    await until(counted(storage, succeeded=len(jobs)))
    other.tell()
    assert other.status() == 0, other.said
    assert place.noted("began") == place.noted("ended") == Counter(range(len(jobs)))
    assert await storage.list_servers() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_the_second_signal_cancels_what_runs_and_hands_it_back(address, storage, place, number, status) -> None:
    await storage.enqueue_many([Job("hold", [number]) for number in range(3)])
    worker = place.work(address.url, *address.words, "--shutdown-timeout", "3600")
    await until(lambda: len(place.noted("began")) == 3)
    worker.tell(signal.SIGTERM)
    await until(lambda: "stopping: 3 jobs run, and have 3600 s to end" in worker.said)
    assert worker.is_alive
    worker.tell(number)
    assert worker.status() == status, worker.said
    assert await counts(storage) == {"enqueued": 3}
    assert {job.attempt for job in await storage.list()} == {0}
    assert "3 cut short" in worker.said
    assert await storage.list_servers() == []


async def test_what_outlasts_the_shutdown_timeout_is_cancelled_and_handed_back(address, storage, place) -> None:
    await storage.enqueue(Job("hold", [1]))
    worker = place.work(address.url, *address.words, "--shutdown-timeout", "0.2")
    await until(lambda: place.noted("began"))
    worker.tell(signal.SIGINT)
    assert worker.status() == 130, worker.said
    assert await counts(storage) == {"enqueued": 1}
    assert "1 cut short" in worker.said


@pytest.mark.parametrize("method", ["block", "hog"])
async def test_a_job_that_can_not_be_cancelled_keeps_its_lease_and_no_process(address, storage, place, method) -> None:
    job = Job(method, [1])
    await storage.enqueue(job)
    worker = place.work(address.url, *address.words, "--lease", "3600", "--shutdown-timeout", "3600")
    await until(lambda: place.noted("began"))
    worker.tell()
    await until(lambda: "stopping" in worker.said)
    worker.tell()
    assert worker.status() == 143, worker.said
    now = await storage.get(job.id)
    assert (now.state, now.attempt) == (JobState.PROCESSING, 1)


async def test_what_a_killed_worker_ran_goes_to_another_when_its_lease_runs_out(address, storage, place) -> None:
    jobs = [Job("hold", [number]) for number in range(20)]
    await storage.enqueue_many(jobs)
    lease = ("--lease", "0.5", "--workers", "5", "--fetch-batch-size", "20")
    killed = place.work(address.url, *address.words, *lease)
    await until(lambda: len(place.noted("began")) == 5)
    killed.kill()
    place.go()
    other = place.work(address.url, *address.words, *lease)
    await until(counted(storage, succeeded=20))
    other.tell()
    assert other.status() == 0, other.said
    assert place.noted("ended") == Counter(range(20))
    assert sum(place.noted("began").values()) == 25
    assert Counter([(await storage.get(job.id)).attempt for job in jobs])[2] >= 5


# -- several processes


PROCESSES = ("--processes", "2", "--workers", "2", "--fetch-batch-size", "1", "--shutdown-timeout", "3600")


async def test_several_processes_stop_as_one_does(address, storage, place) -> None:
    await storage.enqueue_many([Job("hold", [number]) for number in range(6)])
    worker = place.work(address.url, *address.words, *PROCESSES)
    await until(lambda: len(place.noted("began")) == 4)
    assert len({server.pid for server in await storage.list_servers()}) == 2
    worker.tell()
    await until(lambda: "stopping: 4 jobs run" in worker.said)
    place.go()
    assert worker.status() == 0, worker.said
    assert await counts(storage) == {"succeeded": 4, "enqueued": 2}
    assert "4 succeeded" in worker.said
    assert await storage.list_servers() == []


async def test_a_signal_to_all_processes_counts_as_one_to_the_first(address, storage, place) -> None:
    """As systemd sends it, unless it is told KillMode=mixed."""
    await storage.enqueue_many([Job("hold", [number]) for number in range(4)])
    worker = place.work(address.url, *address.words, *PROCESSES)
    await until(lambda: len(place.noted("began")) == 4)
    for server in await storage.list_servers():
        os.kill(server.pid, signal.SIGTERM)
    worker.tell()
    await until(lambda: "stopping: 4 jobs run" in worker.said)
    place.go()
    assert worker.status() == 0, worker.said
    assert await counts(storage) == {"succeeded": 4}


async def test_several_processes_are_cancelled_by_the_second_signal(address, storage, place) -> None:
    await storage.enqueue_many([Job("hold", [number]) for number in range(6)])
    worker = place.work(address.url, *address.words, *PROCESSES)
    await until(lambda: len(place.noted("began")) == 4)
    worker.tell()
    await until(lambda: "stopping: 4 jobs run" in worker.said)
    worker.tell()
    assert worker.status() == 143, worker.said
    assert await counts(storage) == {"enqueued": 6}
    assert "4 cut short" in worker.said


async def test_a_process_that_dies_is_replaced(address, storage, place) -> None:
    worker = place.work(address.url, *address.words, *PROCESSES)
    await until(lambda: worker.said.count(" works: ") == 2)
    server, _ = await storage.list_servers()
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: worker.said.count(" works: ") == 3)
    worker.tell()
    assert worker.status() == 0, worker.said
    assert "was killed by signal 9" in worker.said


# -- memory, where a storage is a process's own

ON_MEMORY = """
import logging, sys
logging.basicConfig(level="INFO")
sys.path.insert(0, ".")
from tasks import registry
from qml_nb import Job, MemoryStorage, WorkerPool
from qml_nb.cli.shift import Shift
storage = MemoryStorage()
storage.sync.enqueue_many([Job("hold", [number]) for number in range(500)])
status = Shift(WorkerPool(storage, registry, worker_count=100, fetch_batch_size=500), "memory", wait=True).run()
print(status, {state.value: many for state, many in storage.sync.get_job_counts().items() if many})
"""


def test_on_memory_it_is_the_same(place) -> None:
    worker = place.run("-c", ON_MEMORY)
    asyncio.run(until(lambda: len(place.noted("began")) == RUNNING))
    worker.tell()
    asyncio.run(until(lambda: "stopping: 100 jobs run" in worker.said))
    place.go()
    assert worker.status() == 0
    assert worker.said.endswith("0 {'enqueued': 400, 'succeeded': 100}\n")
    assert place.noted("ended") == Counter(place.noted("began").keys())
