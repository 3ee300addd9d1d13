"""A storage that is used in several loops and after a fork: each has connections of its own, and none disturbs another."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from qml_nb import Job, open_storage
from qml_nb.servers import LocalServers
from tests.faults.conftest import start

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, gc, os, sys
from qml_nb import Job, loops, open_storage

url, options, with_loop = sys.argv[1], eval(sys.argv[2]), sys.argv[3] == "uvloop"
turns = int(sys.argv[4])
run = loops.run if with_loop else asyncio.run

async def use(storage, name):
    for turn in range(20):
        await asyncio.gather(*(storage.enqueue(Job(name, [turn, number])) for number in range(10)))
        claimed = await storage.fetch_available_jobs_atomic(name, 5)
        assert all(await asyncio.gather(*(storage.complete(job) for job in claimed)))

async def main():
    storage = await open_storage(url, **options)
    await use(storage, "before")
    storage.sync.enqueue(Job("before", []))
    busy = [asyncio.create_task(storage.enqueue(Job("before", [number]))) for number in range(100)]
    for _ in range(turns):
        await asyncio.sleep(0)
    child = os.fork()
    if not child:
        status = 1
        try:
            gc.collect()
            run(use(storage, "child"))
            storage.sync.enqueue(Job("child", []))
            run(storage.close())
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert all(await asyncio.gather(*busy))
    await use(storage, "parent")
    ended = await asyncio.to_thread(os.waitpid, child, 0)
    await use(storage, "after")
    storage.sync.enqueue(Job("after", []))
    counts = await storage.get_job_counts()
    await storage.close()
    print(os.waitstatus_to_exitcode(ended[1]), sum(counts.values()))

run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("turns", [0, 1, 5], ids=lambda turns: f"busy for {turns} turns")
@pytest.mark.parametrize("kind", ["memory", "redis", "cluster", "postgres"])
def test_parent_and_child_go_on_with_connections_of_their_own(
    servers: LocalServers, kind: str, loop: str, turns: int
) -> None:
    """On memory the child has a storage of its own, as after any fork; on a server both use the same jobs."""
    url, options = "memory://", {}
    if kind != "memory":
        name = "schema_name" if kind == "postgres" else "key_prefix"
        url, options = start(servers, kind), {name: f"forks_{uuid4().hex}"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, url, repr(options), loop, str(turns)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    jobs = 3 * 200 + 102 if kind == "memory" else 4 * 200 + 103
    assert (done.stdout.split(), done.stderr) == (["0", str(jobs)], "")


def test_loops_one_after_the_other_and_beside_each_other_share_a_storage(url: str) -> None:
    """As in a script with several `asyncio.run`, and in an application with a thread for each of its loops."""
    name = "schema_name" if url.startswith("postgresql") else "key_prefix"
    storage = asyncio.run(open_storage(url, **{name: f"loops_{uuid4().hex}"}))

    async def use(number: int) -> int:
        await asyncio.gather(*(storage.enqueue(Job("work", [number, place])) for place in range(50)))
        return len(await storage.fetch_available_jobs_atomic(f"worker-{number}", 50))

    assert [asyncio.run(use(number)) for number in range(3)] == [50, 50, 50]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda number: asyncio.run(use(number)), range(8))) == [50] * 8
    assert sum(asyncio.run(storage.get_job_counts()).values()) == 11 * 50
    asyncio.run(storage.close())
