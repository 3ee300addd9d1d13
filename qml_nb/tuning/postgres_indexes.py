"""The guide's four indexes: the statement that each is for, with and without it, on a table as the guide has it.

The guide's own index statements are refused by every version: an expression needs parentheses of its own, and a cast of
text to a timestamp may not stand in an index. Here an instant is indexed as the text that it is: written in UTC and in
one form, it sorts as the instant does.
"""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any

import asyncpg
from msgspec import Struct

from qml_nb import loops
from qml_nb.tuning.postgres_plain import TABLE
from qml_nb.tuning.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qml_nb.servers import LocalServers

STORED = 200_000
REPEATS = 5

# Of ten jobs five have succeeded, two wait, and one each is scheduled, awaits a retry, has failed.
_FILL = """
insert into guide_jobs (id, method, arguments, created_at, state, queue, priority)
select gen_random_uuid(), 'work', '["data"]', now() - made.age, jsonb_build_object('type', made.type, replace(made.type, 'awaiting_', '') || '_at',
         to_char(now() at time zone 'utc' + made.age - interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
       ('{payment,inventory,shipping,analytics}'::text[])[1 + made.number % 4], made.number % 7
  from (select number, number % 7200 * interval '1 second' as age,
               ('{succeeded,succeeded,succeeded,succeeded,succeeded,enqueued,enqueued,scheduled,awaiting_retry,failed}'::text[])
               [1 + number / 10 % 10] as type
          from generate_series(1, $1::integer) number) made
"""
_FETCH = """
select id, method, arguments, created_at, state, queue, priority from guide_jobs
 where state ->> 'type' = 'enqueued' {queues}
 order by priority desc, created_at asc
   for update skip locked limit 1
"""


class Index(Struct, frozen=True):
    """An index, and the statement that it is for."""

    row: int
    what: str
    name: str
    definition: str
    statement: str
    claim: str = ""


INDEXES = (
    Index(
        46,
        "fetch from all queues",
        "idx_jobs_state_priority",
        "((state ->> 'type'), priority desc, created_at) where state ->> 'type' in ('enqueued', 'scheduled')",
        _FETCH.format(queues=""),
        "2 to 5 ms",
    ),
    Index(
        47,
        "fetch from one queue",
        "idx_jobs_queue_state",
        "(queue, (state ->> 'type'), priority desc) where state ->> 'type' = 'enqueued'",
        _FETCH.format(queues="and queue = any(array['payment'])"),
        "2 to 5 ms",
    ),
    Index(
        48,
        "100 due retries",
        "idx_jobs_retry_time",
        "((state ->> 'retry_at')) where state ->> 'type' = 'awaiting_retry'",
        "select id from guide_jobs where state ->> 'type' = 'awaiting_retry' and state ->> 'retry_at' <= "
        "to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') order by state ->> 'retry_at' limit 100",
    ),
    Index(
        49,
        "the 50 newest failed jobs",
        "idx_jobs_failed",
        "((state ->> 'failed_at')) where state ->> 'type' = 'failed'",
        "select id from guide_jobs where state ->> 'type' = 'failed' order by state ->> 'failed_at' desc limit 50",
    ),
)


def index_rows(servers: LocalServers) -> Iterator[Row]:
    """Run each statement on a table without an index, and with its own."""
    return iter(loops.run(_measured(servers.postgres(durable=True))))


async def _measured(url: str) -> list[Row]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(TABLE)
        await connection.execute(_FILL.replace("$1", str(int(STORED))))
        await connection.execute("vacuum analyze guide_jobs")
        return [row for index in INDEXES for row in await _with_and_without(connection, index)]
    finally:
        await connection.close()


async def _with_and_without(connection: Any, index: Index) -> list[Row]:
    before, took = await _explained(connection, index.statement)
    without = Row(index.row, f"{index.what}, no index: {before}", "", took, "ms")
    await connection.execute(f"create index {index.name} on guide_jobs {index.definition}")
    await connection.execute("analyze guide_jobs")
    after, took = await _explained(connection, index.statement)
    await connection.execute(f"drop index {index.name}")
    return [without, Row(index.row, f"{index.what}: {after}", index.claim, took, "ms")]


async def _explained(connection: Any, statement: str) -> tuple[str, float]:
    """Return how the table is read, and the milliseconds that the statement takes."""
    times = []
    plan: dict[str, Any] = {}
    for _ in range(REPEATS + 1):
        [explained] = json.loads(await connection.fetchval(f"explain (analyze, format json) {statement}"))
        plan = explained["Plan"]
        times.append(explained["Execution Time"])
    return _scan(plan), median(times[1:])


def _scan(plan: Mapping[str, Any]) -> str:
    """Return how the plan comes to its rows.

    >>> _scan({"Node Type": "Sort", "Plans": [{"Node Type": "Seq Scan"}]})
    'Seq Scan, Sort'
    """
    kind, steps = plan["Node Type"], [_scan(below) for below in plan.get("Plans", ())]
    if "Index Name" in plan:
        steps.append(f"{kind} on {plan['Index Name']}")
    elif kind.endswith(("Seq Scan", "Sort")):
        steps.append(kind)
    return ", ".join(steps)
