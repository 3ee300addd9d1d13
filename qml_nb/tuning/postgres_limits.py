"""How fast the PostgreSQL storage is, beside pgbench with the same functions, on a durable server that is started for it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from qml_nb import loops
from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage
from qml_nb.tuning import enqueueing
from qml_nb.tuning.drain import filled_and_drained
from qml_nb.tuning.figures import Figure, figure
from qml_nb.tuning.pgqueuer_drain import pgqueuer_rate
from qml_nb.tuning.pickup import pickup_figures
from qml_nb.tuning.postgres_raw import cycled, pushed, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from qml_nb.storage.storage import Storage

JOBS = 50_000
GUIDE_JOBS, GUIDE_TASKS = 25_000, 250
MANY = 1_000
BATCH = 100
SLOTS = 100
SAMPLES = 400
RIVAL_JOBS = 20_000
FINISHED = 1_000_000
IN_FRONT = 500_000
CLAIMS = 500

Rate: TypeAlias = "Callable[[Storage], Awaitable[float]]"
Say: TypeAlias = "Callable[[str], None]"

_FINISHED = """with counted as (insert into "{schema}".qml_jobs_count values ('default', 4, $1)) insert into "{schema}".qml_jobs_done
  (id, queue, method, priority, max_retries, created_ts, state, attempt, claim_id, worker_id, started_ts, args, kwargs, metadata,
   finished_ts, expires_ts)
select ('01000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'default', 'noop', 0, 0, 1, 4, 1, 1, 'w', 1, '[1]', '{{}}', '{{}}',
       1, 9e9
  from generate_series(1, $1) n"""
_WAITING = """with counted as (insert into "{schema}".qml_jobs_count values ('in front', 0, $1)) insert into "{schema}".qml_jobs (id, queue, method, priority, max_retries, created_ts, state, args, kwargs, metadata)
select ('01000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'in front', 'noop', 9, 0, 1, 0, '[1]', '{{}}', '{{}}'
  from generate_series(1, $1) n"""


def postgres_figures(repeats: int, say: Say) -> Iterator[Figure]:
    """Measure the PostgreSQL storage; `say` is told what comes next. A figure and its limit take turns, run by run."""
    with LocalServers() as servers:
        url = servers.postgres(durable=True)
        yield from _enqueueing(url, repeats, say)
        yield from _draining(url, repeats, say)
        say("pick-up at idle")
        yield from pickup_figures(url, {"schema_name": _fresh()}, SAMPLES, {50: 3.0, 99: 15.0})
        say(f"claims with {IN_FRONT:,} waiting jobs of another queue in front")
        yield from _claiming(url)


def _enqueueing(url: str, repeats: int, say: Say) -> Iterator[Figure]:
    what = f"{JOBS:,} concurrent tasks, no storage: each makes a job and awaits a future"
    say(what)
    yield figure(what, [loops.run(enqueueing.alone(JOBS)) for _ in range(repeats)], "jobs/s")
    for what, rate, many, goal in (
        (
            f"the guide's program: {GUIDE_TASKS} tasks of {GUIDE_JOBS // GUIDE_TASKS} enqueues",
            partial(enqueueing.from_producers, jobs=GUIDE_JOBS, producers=GUIDE_TASKS),
            BATCH,
            30_000,
        ),
        (f"{JOBS:,} concurrent enqueues, gathered", partial(enqueueing.gathered, jobs=JOBS), BATCH, 35_000),
        (f"{JOBS:,} concurrent enqueues, a task made for each", partial(enqueueing.as_tasks, jobs=JOBS), BATCH, 35_000),
        (f"enqueue_many, {MANY:,} a call", partial(enqueueing.in_calls, jobs=JOBS, many=MANY), MANY, 100_000),
    ):
        say(what)
        yield _beside(
            what, goal, [(_measured(url, rate), _bench(url, pushed, many)) for _ in range(repeats)], f"push {many}"
        )


def _draining(url: str, repeats: int, say: Say) -> Iterator[Figure]:
    what = f"server draining {JOBS:,} no-op jobs, {SLOTS} slots"
    say(what)
    drain = partial(filled_and_drained, jobs=JOBS, many=MANY, worker_count=SLOTS)
    both = [(_measured(url, drain), _settled(url)) for _ in range(repeats)]
    drained = _beside(what, 28_000, both, f"claim and settle {BATCH}", share_goal=0.6)
    yield drained
    cycles = [cycle for _ in range(repeats) if (cycle := _bench(url, cycled, BATCH))]
    if cycles:
        yield figure(f"pgbench, one connection: push, claim and settle {BATCH}", cycles, "jobs/s")
    else:
        say("pgbench: not measured, it is not beside the server's programs")
    say("pgqueuer, the same jobs")
    rivals = [rival for _ in range(repeats) if (rival := pgqueuer_rate(url, RIVAL_JOBS))]
    if rivals:
        name = rivals[0][0]
        rates = figure(f"{name}, draining {RIVAL_JOBS:,} no-op jobs", [rate for _, rate in rivals], "jobs/s")
        yield figure(f"the drain as a multiple of {name}", [drained.value / rates.value], "times", goal=1.5)
        yield rates
    else:
        say("pgqueuer: not measured, pip install 'pgqueuer>=1.6'")
    what = f"the drain with {FINISHED:,} finished jobs in the archive"
    say(what)
    runs = [(_measured(url, drain, _FINISHED, FINISHED), _measured(url, drain)) for _ in range(repeats)]
    yield figure(
        what,
        [with_history for with_history, _ in runs],
        "jobs/s",
        limits=[without for _, without in runs],
        limit_is="the same with an empty archive",
        share_goal=0.75,
    )


def _beside(
    what: str, goal: float, both: list[tuple[float, float | None]], limit_is: str, share_goal: float | None = None
) -> Figure:
    """Make a figure beside what pgbench measured, where there is one."""
    limits = [limit for _, limit in both if limit is not None]
    return figure(
        what,
        [value for value, _ in both],
        "jobs/s",
        goal=goal,
        limits=limits,
        limit_is=f"pgbench, one connection: {limit_is}",
        share_goal=share_goal,
    )


def _claiming(url: str) -> Iterator[Figure]:
    for limit, queues, goal in ((1, ["default"], 1.0), (1, ["default", "in front"], None), (BATCH, ["default"], None)):

        async def claims(storage: Storage, limit: int = limit, queues: list[str] = queues) -> float:
            await enqueueing.in_calls(storage, CLAIMS * limit, MANY)
            times = []
            for _ in range(CLAIMS):
                began = perf_counter()
                await storage.fetch_available_jobs_atomic("bench", limit, queues)
                times.append(perf_counter() - began)
            return sorted(times)[CLAIMS // 2] * 1_000

        beside = _measured(url, claims)
        yield figure(
            f"claim of {limit} from {' and '.join(queues)}, {IN_FRONT:,} jobs of another queue in front, p50",
            [_measured(url, claims, _WAITING, IN_FRONT)],
            "ms",
            goal=goal,
            at_least=False,
            limits=[beside],
            limit_is="the same with nothing in front",
        )


def _measured(url: str, rate: Rate, fill: str = "", rows: int = 0) -> float:
    """Measure in a schema of its own, which is dropped after it, so that runs don't slow each other down."""

    async def run() -> float:
        async with (
            _schema(url, fill, rows) as names,
            await open_storage(url, max_finished_jobs=None, **names) as storage,
        ):
            return await rate(storage)

    return loops.run(run())


def _bench(url: str, bench: Callable[[str, str, int], float | None], many: int) -> float | None:
    async def run() -> float | None:
        async with _schema(url) as names:
            return bench(url, names["schema_name"], many)

    return loops.run(run())


def _settled(url: str) -> float | None:
    async def run() -> float | None:
        async with _schema(url) as names:
            async with await open_storage(url, **names) as storage:
                await enqueueing.in_calls(storage, JOBS, MANY)
            return settled(url, names["schema_name"], BATCH, JOBS)

    return loops.run(run())


@asynccontextmanager
async def _schema(url: str, fill: str = "", rows: int = 0) -> AsyncIterator[Mapping[str, str]]:
    schema = _fresh()
    async with await open_storage(url, schema_name=schema):
        connection = await asyncpg.connect(url)
    try:
        if fill:
            await connection.execute(fill.format(schema=schema).replace("$1", str(rows)))
            await connection.execute(f'vacuum analyze "{schema}".qml_jobs, "{schema}".qml_jobs_done')
        await connection.execute("checkpoint")
        yield {"schema_name": schema}
    finally:
        await connection.execute(f'drop schema "{schema}" cascade')
        await connection.close()


def _fresh() -> str:
    """Return the name of a schema that nobody has used."""
    return f"bench_{token_hex(4)}"
