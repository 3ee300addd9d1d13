"""How fast the Redis storage is, beside what Redis itself can do, on servers that are started for it."""

from __future__ import annotations

from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, TypeAlias

from redis import Redis

from qml_nb import loops
from qml_nb.job import Job
from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage
from qml_nb.tuning import enqueueing
from qml_nb.tuning.drain import filled_and_drained
from qml_nb.tuning.dramatiq_drain import dramatiq_rate
from qml_nb.tuning.figures import Figure, figure
from qml_nb.tuning.pickup import pickup_figures
from qml_nb.tuning.redis_raw import BATCH, benchmark_rates, empty, raw_rates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from qml_nb.storage.storage import Storage

JOBS = 50_000
MANY = 1_000
PRODUCERS = 100
SLOTS = 100
SAMPLES = 400
QUEUES = ("one", "two", "three")
RIVAL_JOBS = 5_000

Rate: TypeAlias = "Callable[[Storage], Awaitable[float]]"


def redis_figures(repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Measure the Redis storage; `say` is told what comes next. A figure and its limit take turns, run by run."""
    with LocalServers() as servers:
        url = servers.redis()
        say("memory a waiting job")
        yield loops.run(_memory(url))
        yield from _enqueueing(url, repeats, say)
        yield from _draining(url, repeats, say)
        say("pick-up at idle")
        yield from _pickup(url)
        say("redis-benchmark")
        commands = benchmark_rates(servers.server(url).port)
        if not commands:
            say("redis-benchmark: not measured, it is not on PATH (Debian: apt-get install redis-tools)")
        for what, rate in commands.items():
            yield figure(what, [rate], "commands/s")
        say("a cluster of three")
        yield from _cluster(url, servers.redis_cluster(3), repeats)


def _enqueueing(url: str, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    what = f"{JOBS:,} concurrent tasks, no storage: each makes a job and awaits a future"
    say(what)
    yield figure(what, [loops.run(enqueueing.alone(JOBS)) for _ in range(repeats)], "jobs/s")
    for what, rate, goal in (
        (f"{JOBS:,} concurrent enqueues, gathered", partial(enqueueing.gathered, jobs=JOBS), 60_000),
        (f"{JOBS:,} concurrent enqueues, a task made for each", partial(enqueueing.as_tasks, jobs=JOBS), 60_000),
        (
            f"{PRODUCERS} looping producers, one await enqueue each",
            partial(enqueueing.from_producers, jobs=JOBS, producers=PRODUCERS),
            80_000,
        ),
        (f"enqueue_many, {MANY:,} a call", partial(enqueueing.in_calls, jobs=JOBS, many=MANY), 150_000),
    ):
        say(what)
        both = [(_measured(url, rate), raw_rates(url, JOBS)[0]) for _ in range(repeats)]
        yield figure(
            what,
            [value for value, _ in both],
            "jobs/s",
            goal=goal,
            limits=[raw for _, raw in both],
            limit_is=f"packed scripts that store {BATCH}",
        )


def _draining(url: str, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    what = f"server draining {JOBS:,} no-op jobs, {SLOTS} slots"
    say(what)
    drain = partial(filled_and_drained, jobs=JOBS, many=MANY, worker_count=SLOTS)
    both = [(_measured(url, drain), raw_rates(url, JOBS)[1]) for _ in range(repeats)]
    drained = figure(
        what,
        [value for value, _ in both],
        "jobs/s",
        goal=45_000,
        limits=[raw for _, raw in both],
        limit_is=f"packed scripts that store, fetch and settle {BATCH}",
        share_goal=0.25,
    )
    yield drained
    say("dramatiq, the same jobs")
    rival = dramatiq_rate(url, RIVAL_JOBS)
    if rival is None:
        say("dramatiq: not measured, pip install 'dramatiq[redis]>=2.2'")
        return
    yield figure(
        f"the same, as a multiple of {rival[0]}",
        [drained.value / rival[1]],
        "times",
        goal=10,
        limits=[],
    )
    yield figure(f"{rival[0]}, draining {RIVAL_JOBS:,} no-op jobs", [rival[1]], "jobs/s")


def _pickup(url: str) -> Iterator[Figure]:
    return pickup_figures(url, {"key_prefix": _fresh()}, SAMPLES, {50: 1.5, 99: 5.0})


def _cluster(single: str, cluster: str, repeats: int) -> Iterator[Figure]:
    for what, rate in (
        (
            f"cluster of 3, {len(QUEUES)} queues: enqueue_many",
            partial(enqueueing.in_calls, jobs=JOBS, many=MANY, queues=QUEUES),
        ),
        (
            f"cluster of 3, {len(QUEUES)} queues: drain",
            partial(filled_and_drained, jobs=JOBS, many=MANY, worker_count=SLOTS, queues=QUEUES),
        ),
    ):
        both = [(_measured(cluster, rate), _measured(single, rate)) for _ in range(repeats)]
        yield figure(
            what,
            [value for value, _ in both],
            "jobs/s",
            limits=[value for _, value in both],
            limit_is="the same on a single server",
            share_goal=0.75,
        )


def _measured(url: str, rate: Rate) -> float:
    """Measure on an empty server: what earlier runs left there would make later ones slower."""
    empty(url)

    async def run() -> float:
        async with await open_storage(url, key_prefix=_fresh(), max_finished_jobs=None) as storage:
            return await rate(storage)

    return loops.run(run())


async def _memory(url: str) -> Figure:
    async with await open_storage(url, key_prefix=_fresh()) as storage:
        with Redis.from_url(url) as client:
            before = _used(client)
            await storage.enqueue_many(Job("send_email", [number, "user@example.com", True]) for number in range(JOBS))
            size = (_used(client) - before) / JOBS
    return figure("memory on the server, a waiting job of 3 short arguments", [size], "bytes", goal=350, at_least=False)


def _used(client: Redis) -> int:
    used: int = client.info("memory")["used_memory"]
    return used


def _fresh() -> str:
    """Return a key prefix that nobody has used."""
    return f"bench-{token_hex(4)}"
