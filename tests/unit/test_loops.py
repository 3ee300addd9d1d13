"""The library's own loops are uvloop's where that is installed, and asyncio's where it is not."""

import asyncio
import subprocess
import sys
from textwrap import dedent

import pytest
import uvloop

from qml_nb import loops

PROGRAM = """
    import sys
    if {hidden}:
        sys.modules["uvloop"] = None
    from qml_nb import Job, MemoryStorage, WorkerPool, WorkerRegistry, loops

    registry, kinds = WorkerRegistry(), []

    @registry.task
    async def note():
        import asyncio
        kinds.append(type(asyncio.get_running_loop()).__module__.split(".")[0])

    storage = MemoryStorage()
    storage.sync.enqueue_many([Job("note")])
    with WorkerPool(storage, registry):
        storage.sync.drained(timeout=30)
    print(kinds, loops.LOOP)
"""


@pytest.mark.parametrize(("hidden", "said"), [(False, "['uvloop'] uvloop"), (True, "['asyncio'] asyncio")])
def test_a_pool_runs_on_the_fastest_loop_there_is(hidden: bool, said: str) -> None:
    code = dedent(PROGRAM).format(hidden=hidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == (said, "")


def test_run_returns_what_the_coroutine_does() -> None:
    async def kind() -> type[asyncio.AbstractEventLoop]:
        return type(asyncio.get_running_loop())

    assert loops.run(kind()) is uvloop.Loop


def test_run_lets_errors_through() -> None:
    async def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        loops.run(fail())
