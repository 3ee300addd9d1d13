"""What servers and pools cost, and what they keep to: figures on a server of the storage that is started for them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from functools import partial
from math import inf
from secrets import token_hex
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, TypeAlias

from qml_nb import loops
from qml_nb.job import Job
from qml_nb.load.tasks import synthetic_tasks
from qml_nb.server import BackgroundJobServer, WorkerPool, WorkerRegistry
from qml_nb.servers import LocalServers
from qml_nb.states import ENQUEUED, PROCESSING, SUCCEEDED, JobState
from qml_nb.storage import open_storage
from qml_nb.tuning import enqueueing
from qml_nb.tuning.drain import drain_rate
from qml_nb.tuning.figures import Figure, figure
from qml_nb.tuning.process_servers import two_against_one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from qml_nb.server.context import JobContext
    from qml_nb.storage.storage import Storage

Say: TypeAlias = "Callable[[str], None]"

JOBS, MANY, SLOTS = 50_000, 1_000, 100
RUNNING, PREFETCHED = 100, 400
DUE_A_SECOND, DUE_SECONDS = 10_000, 3
RECURRING_SECONDS = 60
_LONG = 60.0
_LOOK = 0.002


def server_figures(kind: str, repeats: int, say: Say) -> Iterator[Figure]:
    """Measure servers on a storage of that kind, "redis" or "postgres"; `say` is told what comes next."""
    with LocalServers() as servers:
        url = servers.redis() if kind == "redis" else servers.postgres(durable=True)
        name = "key_prefix" if kind == "redis" else "schema_name"

        def fresh() -> dict[str, Any]:
            return {name: f"bench_{token_hex(4)}"}

        yield from _cost(url, fresh, repeats, say)
        say("two servers in processes against one")
        yield two_against_one(url, repeats)
        say(f"graceful stop with {RUNNING} running and {PREFETCHED} prefetched jobs")
        yield from _stopping(url, fresh(), repeats)
        say("a kernel killed with -9, two process servers under it")
        yield _killed(url, fresh, repeats)
        say(f"{DUE_A_SECOND:,} jobs due a second for {DUE_SECONDS} s")
        yield from _promotion(url, fresh())
        say(f"recurring every second, 3 process servers, {RECURRING_SECONDS} s")
        yield from _recurring(url, fresh())


# -- what telemetry and middleware cost


def _cost(url: str, fresh: Callable[[], dict[str, Any]], repeats: int, say: Say) -> Iterator[Figure]:
    what = f"drain of {JOBS:,} no-op jobs with telemetry"
    say(what)
    kinds = {
        "": partial(drain_rate, jobs=JOBS, worker_count=SLOTS, telemetry_interval=None),
        what: partial(drain_rate, jobs=JOBS, worker_count=SLOTS),
        "… and a middleware": partial(drain_rate, jobs=JOBS, worker_count=SLOTS, registry=_observed(hook=False)),
        "… and a hook": partial(drain_rate, jobs=JOBS, worker_count=SLOTS, registry=_observed(hook=True)),
    }
    runs: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, drain in kinds.items():
            runs[kind].append(_drained(url, fresh(), drain))
    limits = runs.pop("")
    for kind, rates in runs.items():
        share_goal = None if "hook" in kind else 0.85
        yield figure(
            kind, rates, "jobs/s", limits=limits, limit_is="the same without any of them", share_goal=share_goal
        )


def _observed(*, hook: bool) -> WorkerRegistry:
    """Return tasks with a middleware that passes on, and a hook that only looks."""
    registry = synthetic_tasks()

    @registry.middleware
    async def passes_on(_job: Job, _ctx: JobContext, proceed: Callable[[], Awaitable[Any]]) -> Any:
        return await proceed()

    def looks(_job: Job, _old: Any, _new: Any) -> None:
        pass

    if hook:
        registry.on_state_change(looks)
    return registry


def _drained(url: str, options: dict[str, Any], drain: Callable[[Storage], Awaitable[float]]) -> float:
    async def run() -> float:
        async with await open_storage(url, max_finished_jobs=None, **options) as storage:
            await enqueueing.in_calls(storage, JOBS, MANY)
            return await drain(storage)

    return loops.run(run())


# -- a graceful stop


def _stopping(url: str, options: dict[str, Any], repeats: int) -> Iterator[Figure]:
    stops = [loops.run(_stopped(url, options)) for _ in range(repeats)]
    what = f"graceful stop: {PREFETCHED} prefetched jobs are back in the queue"
    yield figure(what, [back for back, _ in stops], "ms", goal=200, at_least=False)
    yield figure("… jobs lost or run twice", [wrong for _, wrong in stops], "jobs", goal=0, at_least=False)


async def _stopped(url: str, options: dict[str, Any]) -> tuple[float, float]:
    """Return the milliseconds until what did not start was back, and how many jobs did not run once."""
    runs: dict[int, int] = {}
    registry, let_go = WorkerRegistry(), asyncio.Event()

    @registry.task
    async def hold(number: int) -> None:
        runs[number] = runs.get(number, 0) + 1
        await let_go.wait()

    async with await open_storage(url, **options) as storage:
        jobs = RUNNING + PREFETCHED
        await storage.enqueue_many(Job("hold", [number]) for number in range(jobs))
        server = BackgroundJobServer(storage, registry, worker_count=RUNNING, fetch_batch_size=jobs)
        await server.start()
        await _counted(storage, {PROCESSING: jobs})
        began = perf_counter()
        stopping = asyncio.create_task(server.stop())
        await _counted(storage, {ENQUEUED: PREFETCHED, PROCESSING: RUNNING})
        took = perf_counter() - began
        let_go.set()
        await stopping
        async with BackgroundJobServer(storage, registry, worker_count=RUNNING):
            await storage.drained(timeout=_LONG)
    return took * 1000, sum(runs.get(number) != 1 for number in range(jobs))


async def _until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_LONG):
        while True:
            if await true():
                return
            await asyncio.sleep(_LOOK)


async def _counted(storage: Storage, counts: dict[JobState, int]) -> None:
    async def are_so() -> bool:
        return counts.items() <= (await storage.get_job_counts()).items()

    await _until(are_so)


async def _registered(storage: Storage, servers: int) -> None:
    async def are_there() -> bool:
        return len(await storage.list_servers()) >= servers

    await _until(are_there)


# -- a kernel that is killed

_KERNEL = """import sys
from qml_nb import WorkerPool, WorkerRegistry
registry = WorkerRegistry()
@registry.task
def spin() -> None:
    while True:
        pass
pool = WorkerPool(sys.argv[1], registry, servers=2, where="process", storage_options={sys.argv[2]: sys.argv[3]}).start()
sys.stdin.read()
"""


def _killed(url: str, fresh: Callable[[], dict[str, Any]], repeats: int) -> Figure:
    runs = [_kill(url, fresh()) for _ in range(repeats)]
    return figure("kernel killed with -9: until no server process is left", runs, "s", goal=3, at_least=False)


def _kill(url: str, options: dict[str, Any]) -> float:
    command = [sys.executable, "-c", _KERNEL, url, *map(str, next(iter(options.items())))]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as kernel:
        pids = loops.run(_busy_servers(url, options))
        kernel.kill()
    began = perf_counter()
    while any(map(_is_alive, pids)) and perf_counter() - began < _LONG:
        loops.run(asyncio.sleep(0.01))
    return perf_counter() - began if not any(map(_is_alive, pids)) else inf


async def _busy_servers(url: str, options: dict[str, Any]) -> list[int]:
    """Return the processes of two servers, once each spins in a job."""
    async with await open_storage(url, **options) as storage:
        await storage.enqueue_many(Job("spin") for _ in range(2))
        await _counted(storage, {PROCESSING: 2})
        return [server.pid for server in await storage.list_servers()]


def _is_alive(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


# -- what is due


def _promotion(url: str, options: dict[str, Any]) -> Iterator[Figure]:
    lags = sorted(loops.run(_lags(url, options)))
    for percent in (50, 99, 100):
        value = lags[min(int(len(lags) * percent / 100), len(lags) - 1)]
        what = f"{DUE_A_SECOND:,} jobs due a second: due to handed out, {f'p{percent}' if percent < 100 else 'longest'}"
        yield figure(what, [value], "ms", goal=100 if percent == 99 else None, at_least=False)


async def _lags(url: str, options: dict[str, Any]) -> list[float]:
    """Return for each of the jobs how many milliseconds after it was due a server had it."""
    jobs = DUE_A_SECOND * DUE_SECONDS
    async with await open_storage(url, max_finished_jobs=None, **options) as storage:
        first = time() + jobs / 5_000
        await asyncio.gather(
            *(storage.schedule(Job("noop"), delay=first - time() + n / DUE_A_SECOND) for n in range(jobs))
        )
        assert time() < first, "scheduling took too long"
        async with BackgroundJobServer(storage, synthetic_tasks(), worker_count=SLOTS):
            await storage.drained(timeout=_LONG)
        done = await storage.list(SUCCEEDED, limit=jobs)
    assert len(done) == jobs
    return [((job.started_ts or inf) - (job.run_ts or 0.0)) * 1000 for job in done]


# -- recurring


def _recurring(url: str, options: dict[str, Any]) -> Iterator[Figure]:
    registry = WorkerRegistry()
    registry.register("tick", _tick)
    with WorkerPool(url, registry, servers=3, where="process", storage_options=options):
        seconds = loops.run(_fired(url, options))
    twice = len(seconds) - len(set(seconds))
    what = f"recurring every second, 3 servers, {RECURRING_SECONDS} s"
    yield figure(f"{what}: firings (59 to 61)", [len(seconds)], "jobs", goal=RECURRING_SECONDS - 1)
    yield figure("… seconds that fired twice", [twice], "seconds", goal=0, at_least=False)


async def _tick() -> None:
    """Do nothing, every second."""


async def _fired(url: str, options: dict[str, Any]) -> list[str]:
    """Return the instants for which a job was stored, over so many seconds from the first server on."""
    async with await open_storage(url, **options) as storage:
        await _registered(storage, 3)
        await storage.schedule_recurring("tick", "* * * * * *", Job("tick"))
        await asyncio.sleep(RECURRING_SECONDS)
        await storage.remove_recurring("tick")
        await storage.drained(timeout=_LONG)
        return [job.metadata["scheduled_for"] for job in await storage.list(SUCCEEDED, limit=1_000)]
