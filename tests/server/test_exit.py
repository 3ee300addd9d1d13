"""A process ends when its main thread does, whatever its pools are doing."""

from __future__ import annotations

import subprocess
import sys
from time import monotonic

import pytest

SCRIPT = """
import asyncio, atexit, time
atexit.register(lambda: print({{state.value: n for state, n in storage.sync.get_job_counts().items() if n}}))
from qml_nb import Job, JobState, MemoryStorage, WorkerPool, WorkerRegistry
from qml_nb.load import LoadGenerator
from qml_nb.measure import Monitor

registry = WorkerRegistry()

@registry.task
async def pause(): await asyncio.sleep(3600)

@registry.task
async def turn():
    while True: await asyncio.sleep(0)

@registry.task
async def spin():
    while True: pass

@registry.task
def spin_in_thread():
    while True: pass

@registry.task
def sleep_in_thread(): time.sleep(3600)

@registry.task
async def ignore():
    while True:
        try: await asyncio.sleep(0.001)
        except BaseException: pass

storage = MemoryStorage()
pool = WorkerPool(storage, registry, worker_count=1, fetch_batch_size=3).start()
monitor = Monitor(storage).watch(pool).start()
load = LoadGenerator(storage, rate=100, queue="elsewhere").start()
{job}
load.stop().join()
"""
RUN = """
storage.sync.enqueue_many([Job({method!r}) for _ in range(3)])
while storage.sync.get_job_counts()[JobState.PROCESSING] < 3: time.sleep(0.01)
time.sleep(0.1)
"""


def run(job: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SCRIPT.format(job=job)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_idle_pool_lets_its_process_end() -> None:
    began = monotonic()
    ended = run("")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert monotonic() - began < 15


@pytest.mark.parametrize("method", ["pause", "turn", "spin", "spin_in_thread", "sleep_in_thread", "ignore"])
def test_a_job_that_never_ends_does_not_keep_the_process(method) -> None:
    began = monotonic()
    ended = run(RUN.format(method=method))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert monotonic() - began < 20
    if method != "spin":
        assert "'processing': 1" in ended.stdout
    assert "'succeeded'" not in ended.stdout
