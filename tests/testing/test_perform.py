"""A single task is performed, and the example of the documentation works."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from inspect import cleandoc
from textwrap import dedent

import pytest

from qml_nb import Job, JobFailed, testing
from qml_nb.testing import perform


async def test_perform_returns_what_the_task_returns(registry, ran) -> None:
    assert await perform(registry, Job("note", [(1, 2)])) == [1, 2]
    with pytest.raises(JobFailed, match="LookupError: x"):
        await perform(registry, Job("fail", ["x"], max_retries=2))
    assert ran == [[1, 2], "x", "x", "x"]


async def test_perform_gives_up_in_time(registry) -> None:
    @registry.task
    async def hang() -> None:
        await asyncio.sleep(3600)

    with pytest.raises(TimeoutError, match=r"processing: hang\(\)"):
        await perform(registry, Job("hang"), timeout=0.2)


SHOP = """
from qml_nb import Job, WorkerRegistry

registry = WorkerRegistry()

@registry.task
async def send_email(address): ...

@registry.task
async def ask_for_review(address): ...

@registry.task
def total(prices): return sum(prices)

async def place_order(storage, address, items):
    await storage.enqueue(Job("send_email", [address], queue="email"))
    await storage.schedule(Job("ask_for_review", [address]), delay=86_400)
"""


def test_the_example_of_the_documentation_works(tmp_path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    for name, text in zip(("test_shop", "test_sync"), cleandoc(testing.__doc__).split("Code without"), strict=True):
        code = [line for line in text.splitlines() if line.startswith("    ") or not line]
        (tmp_path / f"{name}.py").write_text(dedent("\n".join(code)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
