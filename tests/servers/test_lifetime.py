"""Servers and their data are gone when their owner is, however it ends; a forked child leaves them alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from qml_nb.errors import LocalServersStopped, QMLError
from qml_nb.servers import LocalServer, LocalServers
from qml_nb.servers.reaper import _birth_by_ps, birth
from tests.servers.asking import ask, until

ROOT = Path(__file__).parents[2]
OWNER = """
import os, sys, signal, time
from qml_nb.servers import LocalServers
from tests.servers.asking import ask
servers = LocalServers()
url = servers.redis()
server, other = servers.server(url), servers.server(servers.redis())
other.kill()
other.restart()
print(server.pid, other.pid, servers._children._reaper._process.pid, servers.directory, flush=True)
"""
WRITER = """
import os, time
end, number = time.monotonic() + 1, 0
while time.monotonic() < end:
    os.close(os.open(str(number), os.O_CREAT))
    number += 1
"""
COMMAND = [
    sys.executable,
    "-W",
    "error",
    "-W",
    "ignore::DeprecationWarning",
    "-c",
]  # forking with threads is what is tested


class Left:
    """What an owner started, and left or not."""

    def __init__(self, line: str) -> None:
        *pids, directory = line.split()
        self.births = {int(pid): birth(int(pid)) for pid in pids}
        self.directory = Path(directory)

    @property
    def processes(self) -> list[int]:
        return [pid for pid, born in self.births.items() if born and birth(pid) == born]

    @property
    def nothing(self) -> bool:
        return not self.processes and not self.directory.exists()


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run an owner to its end. Returns when nobody has its output open any more."""
    return subprocess.run([*COMMAND, OWNER + script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def owner(script: str) -> Iterator[tuple[subprocess.Popen[str], Left]]:
    """An owner that runs, and what it started."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, OWNER + script], cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as process:
        try:
            left = Left(process.stdout.readline())
            assert len(left.processes) == 3
            yield process, left
        finally:
            process.kill()


def test_stop_ends_the_servers_and_removes_their_data() -> None:
    servers = LocalServers()
    one, other = (servers.server(servers.redis(durable=True)) for _ in range(2))
    other.freeze()
    servers.stop()
    assert [one.is_running, other.is_running, servers.directory.exists()] == [False] * 3
    servers.stop()


def test_stopped_servers_start_no_more() -> None:
    with LocalServers() as servers:
        server = servers.server(servers.redis())
    for start in (servers.redis, servers.redis_cluster, server.restart):
        with pytest.raises(LocalServersStopped, match="make new ones"):
            start()
    assert issubclass(LocalServersStopped, QMLError)


def test_with_stops_them_after_an_error_too() -> None:
    servers = LocalServers()
    with suppress(ZeroDivisionError), servers:
        server = servers.server(servers.redis())
        raise ZeroDivisionError
    assert not server.is_running


def test_one_thread_may_stop_while_others_start() -> None:
    servers, raised = LocalServers(), []

    def start() -> None:
        try:
            while True:
                servers.redis()
        except BaseException as error:
            raised.append(type(error))

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(servers._servers) >= 4)
    for thread in (stops := [Thread(target=servers.stop) for _ in range(3)]):
        thread.start()
    for thread in threads + stops:
        thread.join(30)
    assert raised == [LocalServersStopped] * 4
    assert not any(process.poll() is None for process in servers._children._running)
    assert not servers.directory.exists()


def test_a_cluster_that_is_stopped_as_it_forms_says_so() -> None:
    servers = LocalServers()
    raised: list[BaseException] = []

    def start() -> None:
        try:
            servers.redis_cluster()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=start)
    thread.start()
    until(lambda: len(servers._servers) == 3)
    servers.stop()
    thread.join(30)
    assert [type(error) for error in raised] == [LocalServersStopped]


def test_what_a_program_still_writes_when_its_owner_is_killed_goes_too() -> None:
    script = (
        "import subprocess\n"
        "late = servers.directory / 'late'\n"
        "late.mkdir()\n"
        f"subprocess.run([sys.executable, '-c', {WRITER!r}], cwd=late, start_new_session=True)"
    )
    with owner(script) as (process, left):
        until((left.directory / "late" / "0").exists)
        process.kill()
        until(lambda: not left.processes)
        assert not left.directory.exists()


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "1 / 0", "servers.stop()", "os._exit(0)"])
def test_a_process_that_ends_leaves_nothing(end) -> None:
    done = run(end)
    left = Left(done.stdout)
    until(lambda: left.nothing)
    assert ("Error" in done.stderr) == (end == "1 / 0")


def test_stop_leaves_no_child_and_no_zombie() -> None:
    done = run("servers.stop()\ntry: print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError: print('none')")
    assert done.stdout.split()[-1] == "none"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_leaves_nothing(number) -> None:
    with owner("server.freeze(); input()") as (process, left):
        os.killpg(process.pid, number)  # with all that shares its process group
        process.wait()
        until(lambda: left.nothing)


def test_a_killed_process_leaves_nothing_though_its_forked_child_lives_on() -> None:
    fork = "child = os.fork()\nif not child: time.sleep(60)\nprint(child, flush=True)\ninput()"
    with owner(fork) as (process, left):
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            until(lambda: left.nothing)
            assert birth(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_reaper_holds_no_file_of_its_owner() -> None:
    with owner("input()") as (_, left):
        *_, reaper = left.births
        assert {os.readlink(f"/proc/{reaper}/fd/{fd}") for fd in (1, 2)} == {"/dev/null"}
        assert len(os.listdir(f"/proc/{reaper}/fd")) == 3


def test_stop_does_not_need_the_reaper() -> None:
    servers = LocalServers()
    servers._children._reaper._process.kill()
    servers._children._reaper._process.wait()
    server = servers.server(servers.redis())
    assert ask(server.url, "PING")
    servers.stop()
    assert not server.is_running
    assert not servers.directory.exists()


@pytest.mark.parametrize("end", ["servers.stop()", "server.kill()", "sys.exit()", "del servers, server, other"])
def test_a_forked_child_leaves_the_servers_to_its_parent(end) -> None:
    done = run(f"""
child = os.fork()
if not child:
    {end}
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ask(url, "PING"), server.is_running, servers.redis()[:8])
""")
    assert (done.stdout.splitlines()[1:], done.stderr) == (["0 True True redis://"], "")
    assert Left(done.stdout.splitlines()[0]).nothing


def test_a_forked_child_can_not_start_servers_there() -> None:
    done = run("""
if not (child := os.fork()):
    servers.redis()
os.waitpid(child, 0)
if not (child := os.fork()):
    with LocalServers() as own: print(ask(own.redis(), "PING"))
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ask(url, "PING"))
""")
    assert done.stdout.splitlines()[1:] == ["True", "0 True"]
    assert "LocalServersStopped" in done.stderr


def test_ctrl_c_does_not_reach_the_servers() -> None:
    script = (
        "try: print('here', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print(ask(url, 'PING'), flush=True)"
    )
    with owner(script) as (process, left):
        assert process.stdout.readline() == "here\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "True\n"
        assert process.wait(30) == 0
        assert left.nothing


def test_a_birth_tells_a_process_from_a_later_one_with_its_pid(servers) -> None:
    server: LocalServer = servers.server(servers.redis())
    assert birth(server.pid) == birth(server.pid) != ""
    assert birth(server.pid) != birth(1)
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: birth(server.pid) == "")  # a zombie: nobody has waited for it yet
    server.kill()
    assert birth(server.pid) == ""


def test_without_proc_the_birth_is_asked_of_ps(monkeypatch) -> None:
    answers = iter(["Ss   Tue Nov 24 12:00:00 2026\n", "Z    Tue Nov 24 12:00:00 2026\n", ""])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, next(answers)))
    assert [_birth_by_ps(1) for _ in range(3)] == ["Tue Nov 24 12:00:00 2026", "", ""]
