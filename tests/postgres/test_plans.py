"""The hot statements keep to their indexes: behind half a million jobs of others, and on a table analysed while empty."""

import re
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from qml_nb.storage.postgres.names import Names

MANY = 500_000
FILL = """
insert into qml.job (id, queue, method, priority, max_retries, created_ts, args, kwargs, metadata, state)
select (lpad(to_hex(g), 12, '0') || '70008000' || lpad(to_hex(g), 12, '0'))::uuid, $2, 'm', g % 3, 0, 0, '[]', '{}', '{}', 0
  from generate_series($3::int, $3::int + $1::int - 1) g
"""
RARE = [str(UUID(f"{number:012x}70008000{number:012x}")) for number in (MANY + 1, MANY + 2)]
IDS = "array['{}', '{}']::uuid[]".format(*RARE)
STATEMENTS = {
    "claim": "select * from qml.claim('w', array['rare'], 10, 30, null)",
    "claim from two queues": "select * from qml.claim('w', array['rare', 'bulk'], 10, 30, null)",
    "claim from all queues": "select * from qml.claim('w', null, 10, 30, null)",
    "settle": f"select * from qml.settle({IDS}, array[1, 2]::bigint[], array[4, 4]::smallint[], array['1', '1']::json[], "
    "array[null, null]::text[], array[0, 0]::float8[], null, 1, 1)",
    "renew": f"select * from qml.renew({IDS}, array[1, 2]::bigint[], 30, null)",
    "sweep": "select * from qml.sweep(100, null, 1, null, 3, 'lost')",
    "get": f"select * from qml.get({IDS})",
    "peek": "select * from qml.peek(null, 10)",
    "has_work": "select qml.has_work(array['rare'])",
    "move": f"select * from qml.move({IDS}, 6::smallint, array[0]::smallint[], null, 1, null)",
    "erase": f"select * from qml.erase({IDS})",
    "push": "select qml.push(array[gen_random_uuid()::text], array['rare'], array['m'], array[0], array[0], array[]::float8[], "
    "array[]::text[], array[0]::float8[], array[0]::smallint[], array[]::float8[], array['[]'], array['{}'], array['{}'], null)",
    "enter": f"select qml.enter({IDS}, array['rare'], array[0]::smallint[], array[3]::bigint[])",
}


@pytest.fixture(params=["analysed while empty", "analysed when full"])
async def explained(request, storage, schema, direct) -> Any:
    """What runs a statement and returns the plans of all that it does inside, and then undoes it."""
    names, plans = Names(schema, "qml_jobs"), []
    await direct.execute(names.fill("alter table qml.job set (autovacuum_enabled = off)"))
    await direct.execute(names.fill("analyze qml.job"))
    for many, queue, first in ((MANY, "bulk", 1), (50, "rare", MANY + 1)):
        await direct.execute(names.fill(FILL), many, queue, first)
    if request.param == "analysed when full":
        await direct.execute(names.fill("analyze qml.job"))
    for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_level = notice", "log_analyze = on"):
        await direct.execute(f"load 'auto_explain'; set auto_explain.{setting}")

    async def explain(statement: str) -> str:
        plans.clear()
        direct.add_log_listener(listen)
        transaction = direct.transaction()
        await transaction.start()
        try:
            await direct.fetch(names.fill(statement))
        finally:
            await transaction.rollback()
            direct.remove_log_listener(listen)
        return "\n".join(plans)

    def listen(_: Any, message: asyncpg.PostgresLogMessage) -> None:
        if schema in message.message:  # else it is asyncpg's own, about types
            plans.append(message.message)

    return explain


def rows_read(plans: str) -> int:
    """The most rows that any node gave or threw away."""
    given = [int(rows) * int(loops) for rows, loops in re.findall(r"rows=(\d+)(?:\.\d+)? loops=(\d+)\)", plans)]
    thrown = [int(rows) for rows in re.findall(r"Rows Removed by Filter: (\d+)", plans)]
    return max(given + thrown)


async def test_no_statement_reads_the_table_through(explained) -> None:
    for name, statement in STATEMENTS.items():
        plans = await explained(statement)
        assert "qml_jobs" in plans
        assert not re.search(r"Seq Scan on qml_jobs(_done)?\b", plans), f"{name}:\n{plans}"
        assert rows_read(plans) < 1_000, f"{name}:\n{plans}"
