"""A program that is killed while the servers of its pool are busy: `python -m tests.faults.kernel URL FOLDER NET METHOD…`.

Each job notes its process in FOLDER, one runs in each server, and none ends by itself. NET says what is left of what ends
the servers with this program: "all"; "pipe": all but what the system does by itself; "parent": not even the end of the
pipe, since a process that was forked from this one holds on to it. With "end", it ends when its input does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from asyncio import sleep as sleep_in_loop
from importlib import import_module
from pathlib import Path
from time import sleep

import cloudpickle

from qml_nb import Job, WorkerPool, WorkerRegistry
from qml_nb.server import lifeline

LONG = 3600.0
WITHOUT_SIGNAL = (
    "import sys; sys.path.append({root!r}); from tests.faults.kernel import run_without_signal; "
    "run_without_signal('{module}')"
)


def note(folder: str) -> None:
    """Tell that the job runs, and where."""
    Path(folder, str(os.getpid())).touch()


async def wait_in_loop(folder: str) -> None:
    """Wait as async tasks do."""
    note(folder)
    await sleep_in_loop(LONG)


async def spin_in_loop(folder: str) -> None:
    """Let the event loop do nothing else."""
    note(folder)
    while True:
        pass


def wait_in_thread(folder: str) -> None:
    """Wait in C."""
    note(folder)
    sleep(LONG)


def hold_all_threads(folder: str) -> None:
    """Wait in C, while no thread runs Python."""
    note(folder)
    ctypes.PyDLL(None).sleep(int(LONG))


def spin(folder: str) -> None:
    """Compute."""
    note(folder)
    while True:
        pass


def tasks() -> WorkerRegistry:
    """Register them all, the plain ones also for processes of their own."""
    registry = WorkerRegistry()
    for task in (wait_in_loop, spin_in_loop, wait_in_thread, hold_all_threads, spin):
        registry.register(task.__name__, task)
    for task in (wait_in_thread, hold_all_threads, spin):
        registry.register(f"{task.__name__}_apart", task, process=True)
    return registry


def run_without_signal(module: str) -> None:
    """Be a child process that the system does not end with its parent, and neither do its own children."""
    lifeline._die_with = lambda _: None
    lifeline._CODE = WITHOUT_SIGNAL
    import_module(module).main()


def main(url: str, folder: str, net: str, *methods: str) -> None:
    """Have the jobs run until this program is killed."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    if net in ("pipe", "parent"):
        lifeline._CODE = WITHOUT_SIGNAL
    options = {"worker_count": 1, "fetch_batch_size": 1, "process_count": 1, "job_timeout": LONG}
    pool = WorkerPool(url, tasks(), where="process", servers=len(methods), **options).start()
    while pool.state != "running":
        sleep(0.01)
    pool.storage.sync.enqueue_many([Job(method, [folder]) for method in methods])
    if net == "parent" and not os.fork():
        os.setsid()
        sleep(30)
        os._exit(0)
    if net != "end":
        sleep(LONG)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
