"""A hundred workers in four processes, two kills with -9 and a restart of the server: no job lost, none handed out twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from qml_nb import Job, JobState
from qml_nb.servers import LocalServer
from tests.faults.conftest import Connect
from tests.faults.load import until
from tests.faults.worker import SLOTS

JOBS = 20_000
PROCESSES = 4
PAGE = 1_000


class Processes:
    """Processes of workers, each with a file of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.paths: list[Path] = []

    def start(self) -> None:
        """Start one more."""
        path = self._folder / f"{len(self.paths)}.txt"
        self.paths.append(path)
        command = [sys.executable, "-m", "tests.faults.worker", self._url, str(path)]
        with path.with_suffix(".log").open("wb") as log:
            self.running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log))

    def kill_and_replace(self) -> int:
        """Kill the one that was started last, with -9, and start another; returns how many jobs died with it."""
        process = self.running.pop()
        process.kill()
        process.communicate()
        handed, ran = self.lines(self.paths[-1])
        self.start()
        return len(handed) - len(ran)

    def lines(self, path: Path) -> tuple[list[tuple[str, int, int]], list[int]]:
        """What it was handed, as (id, attempt, claim), and the numbers of what it ran."""
        handed, ran = [], []
        for line in path.read_text().splitlines() if path.exists() else ():
            kind, *words = line.split()
            if kind == "ran":
                ran.append(int(words[0]))
            else:
                handed.append((words[0], int(words[1]), int(words[2])))
        return handed, ran

    def stop(self) -> None:
        """Let all end in order, and see that they do."""
        for process in self.running:
            process.communicate(timeout=60)
            assert process.returncode == 0, "".join(path.with_suffix(".log").read_text() for path in self.paths)


@contextmanager
def processes(url: str, folder: Path) -> Iterator[Processes]:
    """Start them; they are gone in the end, in order if all went well."""
    made = Processes(url, folder)
    try:
        for _ in range(PROCESSES):
            made.start()
        yield made
        made.stop()
    finally:
        for process in made.running:
            process.kill()
            process.communicate()


async def test_no_job_is_lost_and_none_handed_out_twice(connect: Connect, durable: LocalServer, tmp_path: Path) -> None:
    server = durable
    where = {"schema_name": "qml"} if server.url.startswith("postgresql:") else {"key_prefix": "qml"}
    storage = connect(server.url, command_timeout=30, **where)
    jobs = [Job("note", [number], max_retries=10) for number in range(JOBS)]
    assert await storage.enqueue_many(jobs) == JOBS
    started, died = monotonic(), []

    async def succeeded(many: int) -> None:
        async def enough() -> bool:
            return (await storage.get_job_counts())[JobState.SUCCEEDED] >= many

        await until(enough)

    with processes(server.url, tmp_path) as workers:
        for many in (JOBS // 5, JOBS * 2 // 5):
            await succeeded(many)
            await until(lambda: workers.lines(workers.paths[-1])[1])
            died.append(workers.kill_and_replace())
        await succeeded(JOBS * 3 // 5)
        await until(lambda: workers.lines(workers.paths[-1])[1])  # one that starts while the server is away gives up
        server.restart()
        await storage.drained(timeout=60)
        took = monotonic() - started

    found = [
        job
        for first in range(0, JOBS, PAGE)
        for job in await storage.backend.get([job.id for job in jobs[first : first + PAGE]])
    ]
    handed, runs = [], Counter[int]()
    for path in workers.paths:
        taken, ran = workers.lines(path)
        handed += taken
        runs.update(ran)
    twice = len(handed) - len({(job_id, attempt) for job_id, attempt, _ in handed})
    attempts = Counter(attempt for _, attempt, _ in handed)
    print(
        f"\n{JOBS} jobs, {PROCESSES} × {SLOTS} workers, {took:.1f} s: {len(handed)} hand-outs, by attempt {dict(sorted(attempts.items()))}; "
        f"under way at the kills {died}; runs {runs.total()}, jobs that ran more than once {sum(many > 1 for many in runs.values())}; "
        f"lost {JOBS - len(runs)}, handed out twice {twice}"
    )
    assert Counter(job and job.state for job in found) == {JobState.SUCCEEDED: JOBS}
    assert set(runs) == set(range(JOBS))
    assert twice == 0
    assert len({claim for _, _, claim in handed}) == len(handed)
