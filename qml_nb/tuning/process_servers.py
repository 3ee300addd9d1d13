"""What a second processor brings: servers in processes, on jobs that compute."""

from __future__ import annotations

from time import perf_counter, process_time, sleep
from typing import TYPE_CHECKING, Final

from qml_nb.errors import QMLError
from qml_nb.job import Job
from qml_nb.server import WorkerPool, WorkerRegistry
from qml_nb.tuning.figures import Figure, figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SECONDS: Final = 0.005
JOBS: Final = 1_000
_WARM_UP: Final = 0.1
_CALIBRATION: Final = 1_000_000
_POLL: Final = 0.002


def compute(rounds: int) -> int:
    """Count. Unlike `qml_nb.load.burn` it is as much work on a busy machine: it takes longer there."""
    total = 0
    for number in range(rounds):
        total += number & 1
    return total


def rounds_in(seconds: float) -> int:
    """Return how many rounds of `compute` take so much of a processor's time."""
    began = process_time()
    compute(_CALIBRATION)
    return max(round(seconds / (process_time() - began) * _CALIBRATION), 1)


def computing_rate(
    url: str,
    servers: int,
    *,
    where: str = "process",
    jobs: int = JOBS,
    rounds: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> float:
    """Return how many jobs a second so many servers finish, two at a time each; each job computes for `SECONDS`.

    The pool has started and run a tenth as many jobs before, since each connection of a server plans its statements at their
    first use; the time counts from the first enqueue until the storage says that all are finished.
    """
    rounds = rounds_in(SECONDS) if rounds is None else rounds
    registry = WorkerRegistry()
    registry.register("compute", compute)
    with WorkerPool(
        url, registry, where=where, servers=servers, worker_count=2, storage_options=storage_options
    ) as pool:
        try:
            _wait_until_it_runs(pool)
            _drain(pool, max(round(jobs * _WARM_UP), 1), rounds)
            began = perf_counter()
            _drain(pool, jobs, rounds)
            return jobs / (perf_counter() - began)
        finally:
            pool.storage.sync.close()


def _drain(pool: WorkerPool, jobs: int, rounds: int) -> None:
    pool.storage.sync.enqueue_many([Job("compute", [rounds]) for _ in range(jobs)])
    pool.storage.sync.drained()


def _wait_until_it_runs(pool: WorkerPool) -> None:
    while pool.state == "starting":
        sleep(_POLL)
    if pool.state != "running":
        raise pool.error or QMLError(f"{pool!r} does not run")


def two_against_one(url: str, repeats: int) -> Figure:
    """Measure how many times as fast two servers in processes are as one; one and two take turns."""
    rounds = rounds_in(SECONDS)
    rates = [[computing_rate(url, servers, rounds=rounds) for servers in (1, 2)] for _ in range(repeats)]
    what = f"two servers in processes against one, jobs that compute for {SECONDS * 1000:g} ms"
    return figure(what, [two / one for one, two in rates], "times", goal=1.8)
