"""When a notebook's kernel is killed with -9, its servers and the processes of their tasks are gone, whatever they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from qml_nb.servers import LocalServer
from qml_nb.servers.reaper import birth, children_of

LONG = 30.0
PROMISED = 3.0
"""Seconds after which nothing may be left."""
ALL = (
    "wait_in_loop",
    "spin_in_loop",
    "wait_in_thread",
    "hold_all_threads",
    "spin_apart",
    "wait_in_thread_apart",
    "hold_all_threads_apart",
)


class Kernel:
    """A program with a pool of busy servers."""

    def __init__(self, url: str, folder: Path, net: str, methods: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "tests.faults.kernel", url, str(folder), net, *methods]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = monotonic() + LONG
        while len(list(folder.iterdir())) < len(methods):
            assert monotonic() < end
            sleep(0.01)
        self.servers = {pid for pid in children_of(self.process.pid) if is_ours(pid)}
        self.workers = {pid for server in self.servers for pid in children_of(server)}
        assert {int(path.name) for path in folder.iterdir()} <= self.servers | self.workers
        self.family = {pid: birth(pid) for pid in (*children_of(self.process.pid), *self.workers)}

    def left(self, *pids: int) -> set[int]:
        """Those of the processes that still are there."""
        return {pid for pid in pids if birth(pid) == self.family[pid]}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.left(*self.family):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def is_ours(pid: int) -> bool:
    """Whether the process is one of a server."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"qml_nb.server." in words


@pytest.fixture
def start(server: LocalServer, tmp_path: Path) -> Iterator:
    """Starts kernels, which are gone after the test with all that they started."""
    kernels: list[Kernel] = []

    def start(net: str, methods: tuple[str, ...]) -> Kernel:
        kernels.append(Kernel(server.url, tmp_path, net, methods))
        return kernels[-1]

    yield start
    for kernel in kernels:
        kernel.end()


def gone_in(seconds: float, kernel: Kernel, *pids: int) -> bool:
    """Whether all of the processes are gone after so long at the latest."""
    end = monotonic() + seconds
    while kernel.left(*pids) and monotonic() < end:
        sleep(0.01)
    return not kernel.left(*pids)


@pytest.mark.parametrize("net", ["all", "pipe", "parent"])
def test_no_process_of_a_killed_kernel_is_left(start, net) -> None:
    """Where the system does not help, one that lets no other thread run stays until it does."""
    kernel = start(net, ALL if net == "all" else tuple(method for method in ALL if "hold" not in method))
    assert len(kernel.workers) == sum("apart" in method for method in ALL if net == "all" or "hold" not in method)
    kernel.process.kill()
    kernel.process.wait()
    assert gone_in(PROMISED, kernel, *kernel.servers, *kernel.workers)


def test_a_program_that_ends_while_its_servers_work_ends_soon_and_without_a_word(start) -> None:
    kernel = start("end", ("wait_in_loop", "spin_in_loop", "hold_all_threads", "spin_apart"))
    _, said = kernel.process.communicate(timeout=LONG)
    assert (kernel.process.returncode, said) == (0, "")
    assert gone_in(PROMISED, kernel, *kernel.servers, *kernel.workers)


def test_the_processes_of_a_killed_server_go_with_it(start) -> None:
    kernel = start("all", ("spin_apart", "wait_in_loop"))
    [worker] = kernel.workers
    [server] = [pid for pid in kernel.servers if worker in children_of(pid)]
    os.kill(server, signal.SIGKILL)
    assert gone_in(PROMISED, kernel, server, worker)
    assert kernel.left(*kernel.servers) == kernel.servers - {server}
