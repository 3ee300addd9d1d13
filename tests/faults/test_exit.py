"""A program that ends without closing its storage leaves no noise: no warning, no destroyed task, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from textwrap import dedent

import pytest

from qml_nb.servers import LocalServers

AWAITED = """
    async def main():
        storage = await open_storage(URL)
        await storage.enqueue(Job("work"))
        messages = await storage.subscribe("news")
        waiter = asyncio.create_task(storage.wait(["none"], timeout=60))
        reader = asyncio.create_task(anext(messages))
        print(await storage.fetch_and_lock_job("worker"), flush=True)
        await asyncio.sleep(PAUSE)

    asyncio.run(main())
"""
SERVING = """
    registry = WorkerRegistry()

    async def main():
        async with BackgroundJobServer(RedisStorage(URL), registry):
            print("serves", flush=True)
            await asyncio.sleep(PAUSE)

    asyncio.run(main())
"""
UNDER_LOAD = """
    async def main():
        storage = RedisStorage(URL)
        calls = [asyncio.create_task(storage.enqueue(Job("work"))) for _ in range(2_000)]
        await calls[0]
        reads = [asyncio.create_task(storage.get(Job("work").id)) for _ in range(500)]
        await reads[0]
        print("under way", flush=True)
        await asyncio.sleep(PAUSE)

    asyncio.run(main())
"""
SYNC = """
    storage = RedisStorage(URL)
    storage.sync.enqueue(Job("work"))
    print(storage.sync.fetch_and_lock_job("worker"), flush=True)
    time.sleep(PAUSE)
"""
SEVERAL_LOOPS = """
    storage = RedisStorage(URL)
    for _ in range(3):
        asyncio.run(storage.enqueue(Job("work")))
    print(storage.sync.get_job_counts(), flush=True)
    time.sleep(PAUSE)
"""
PROGRAMS = {"awaited": AWAITED, "serving": SERVING, "under load": UNDER_LOAD, "sync": SYNC, "loops": SEVERAL_LOOPS}
FIRST = "import asyncio, time\nfrom qml_nb import *\nURL, PAUSE = {!r}, {!r}\n"


@pytest.fixture(scope="module", params=["single", "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server, and of a cluster, that all of these share."""
    with LocalServers() as servers:
        yield servers.redis() if request.param == "single" else servers.redis_cluster(3)


def program(url: str, text: str, pause: float) -> subprocess.Popen[str]:
    """Start it, with warnings of unclosed things as errors, which Python prints."""
    code = FIRST.format(url, pause) + dedent(text)
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_ends(url: str, name: str) -> None:
    out, noise = program(url, PROGRAMS[name], 0).communicate(timeout=60)
    assert out != ""
    assert noise == ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_interrupted(url: str, name: str) -> None:
    process = program(url, PROGRAMS[name], 60)
    assert process.stdout.readline() != ""
    process.send_signal(signal.SIGINT)
    _, noise = process.communicate(timeout=60)
    assert noise.strip().splitlines()[-1] == "KeyboardInterrupt"
    for wrong in ("ResourceWarning", "Task was destroyed", "never retrieved", "Exception ignored", "unclosed"):
        assert wrong not in noise
