"""How fast dramatiq, the fastest peer that was measured on Redis, drains the same no-op jobs on the same server.

Run as `python -m qml_nb.tuning.dramatiq_drain URL JOBS`, in a process of its own, it prints the rate.
"""

from __future__ import annotations

import sys
from importlib import import_module
from time import perf_counter

from qml_nb.tuning.rival import rival_rate

THREADS = 32


def dramatiq_rate(url: str, jobs: int) -> tuple[str, float] | None:
    """Return what was measured, and its jobs a second; None if dramatiq is not installed."""
    return rival_rate("dramatiq", "qml_nb.tuning.dramatiq_drain", f"{THREADS} threads", url, jobs)


def _drain(url: str, jobs: int) -> float:
    dramatiq = import_module("dramatiq")
    broker = import_module("dramatiq.brokers.redis").RedisBroker(url=url, namespace="dramatiq-bench", middleware=[])
    noop = dramatiq.actor(lambda _number: None, broker=broker, actor_name="noop")
    for number in range(jobs):
        noop.send(number)
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    began = perf_counter()
    worker.start()
    broker.join(noop.queue_name)
    worker.join()
    took = perf_counter() - began
    worker.stop()
    return jobs / took


if __name__ == "__main__":
    sys.stdout.write(str(_drain(sys.argv[1], int(sys.argv[2]))))
