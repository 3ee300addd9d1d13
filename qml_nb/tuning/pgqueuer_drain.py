"""How fast pgqueuer, the fastest peer that was measured on PostgreSQL, drains the same no-op jobs on the same server.

Run as `python -m qml_nb.tuning.pgqueuer_drain URL JOBS`, in a process of its own, it prints the rate.
"""

from __future__ import annotations

import sys
from importlib import import_module
from time import perf_counter
from typing import Any

import asyncpg

from qml_nb import loops
from qml_nb.tuning.rival import rival_rate

BATCH = 100
_DATABASE = "pgqueuer_bench"


def pgqueuer_rate(url: str, jobs: int) -> tuple[str, float] | None:
    """Return what was measured, and its jobs a second; None if pgqueuer is not installed."""
    how = f"batch {BATCH}, asyncpg, {loops.LOOP}"
    return rival_rate("pgqueuer", "qml_nb.tuning.pgqueuer_drain", how, url, jobs)


async def _drain(url: str, jobs: int) -> float:
    admin = await asyncpg.connect(url)
    await admin.execute(f"drop database if exists {_DATABASE}")
    await admin.execute(f"create database {_DATABASE}")
    try:
        connection = await asyncpg.connect(f"{url.rpartition('/')[0]}/{_DATABASE}")
        return await _drain_database(connection, jobs)
    finally:
        await admin.execute(f"drop database {_DATABASE} with (force)")
        await admin.close()


async def _drain_database(connection: Any, jobs: int) -> float:
    pgqueuer = import_module("pgqueuer")
    manager = pgqueuer.QueueManager(pgqueuer.Queries.from_asyncpg_connection(connection))
    await manager.queries.install()

    async def noop(_: Any) -> None:
        pass

    manager.entrypoint("noop")(noop)
    for first in range(0, jobs, 1_000):
        many = min(1_000, jobs - first)
        payloads = [b"%d" % number for number in range(first, first + many)]
        await manager.queries.enqueue(["noop"] * many, payloads, [0] * many)
    began = perf_counter()
    await manager.run(batch_size=BATCH, mode=import_module("pgqueuer.types").QueueExecutionMode.drain)
    return jobs / (perf_counter() - began)


if __name__ == "__main__":
    sys.stdout.write(str(loops.run(_drain(sys.argv[1], int(sys.argv[2])))))
