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
NEW = (
    "array[gen_random_uuid()::text, gen_random_uuid()::text], array['rare'], array['m'], array[0], array[0], array[]::float8[], "
    "array[]::text[], array[0, 0]::float8[], array[0]::smallint[], array[]::float8[], array['[]'], array['{}'], array['{}']"
)
KEYED = """array['{"unique_key": "k1"}', '{"unique_key": "new", "unique_for": 5}']"""
STATEMENTS = {
    "claim": "select * from qml.claim('w', array['rare'], 10, 30, false, null)",
    "claim from two queues": "select * from qml.claim('w', array['rare', 'bulk'], 10, 30, false, null)",
    "claim from two queues in turn": "select * from qml.claim('w', array['rare', 'bulk'], 100, 30, true, null)",
    "claim from all queues": "select * from qml.claim('w', null, 10, 30, false, null)",
    "settle": f"select * from qml.settle({IDS}, array[1, 2]::bigint[], array[4, 0]::smallint[], array['1', '1']::json[], "
    "array[null, null]::text[], array[0, 0]::float8[], null, 1, 1)",
    "renew": f"select * from qml.renew({IDS}, array[1, 2]::bigint[], 30, null)",
    "report": f"select * from qml.report({IDS}, array[1, 2]::bigint[], array['1', '1']::json[])",
    "sweep": "select * from qml.sweep(100, null, 1, null, 3, 'lost', 300)",
    "get": f"select * from qml.get({IDS})",
    "watch": f"select * from qml.watch({IDS}, 30)",
    "peek": "select * from qml.peek(null, 10)",
    "has_work": "select qml.has_work(array['rare'])",
    "has_work without a turn": "select qml.has_work(array['bulk'])",
    "move": f"select * from qml.move({IDS}, 6::smallint, array[0, 1]::smallint[], null, 1, null)",
    "move back": f"select * from qml.move({IDS}, 6::smallint, array[0, 1]::smallint[], null, 1, null) gone, "
    "qml.move(array[gone], 0::smallint, array[6]::smallint[], null, null, null) back",
    "erase": f"select * from qml.erase({IDS})",
    "push": f"select qml.push({NEW}, array[]::text[], null, true, null, 1, 'dropped')",
    "push with keys": f"select qml.push({NEW}, {KEYED}, null, true, null, 1, 'dropped')",
    "enter": f"select qml.enter({IDS}, array['elsewhere'], array[0]::smallint[], array[3]::bigint[])",
    "holders": "select * from qml.holders(array['k1', 'new'], null)",
    "due_recurring": "select * from qml.due_recurring(10, null)",
    "swap_recurring": f"select qml.swap_recurring('r', null, '', 1, {NEW}, {KEYED}, null, null)",
}
USED = """
select qml.put_limits('rare', 40, 1000, 50, 45, 'drop_oldest'), qml.put_limits('bulk', 9, 1, 1, 1, 'reject');
update qml.turn set used_ts = 9e9 where queue = 'bulk';
insert into qml.unique_key (key, job_id, until)
select 'k' || g, gen_random_uuid(), case when g % 2 = 0 then 9e9 + g end from generate_series(1, 20000) g;
insert into qml.watched (job_id, until) select gen_random_uuid(), 9e9 + g from generate_series(1, 20000) g;
insert into qml.recurring (id, schedule, next_ts) select 'r' || g, '', 9e9 + g from generate_series(1, 5000) g;
with mine as (
  update qml.job set extras = json_build_object('unique_key', 'mine' || id), state = 1, worker_id = 'w', lease_ts = 0, started_ts = 0,
         claim_id = 1 where id = any({IDS}) returning id, extras
), keys as (
  insert into qml.unique_key (key, job_id) select extras ->> 'unique_key', id from mine
) insert into qml.watched (job_id, until) select id, 9e9 from mine;
""".replace("{IDS}", IDS)
"""What brings everything into use: bounds, keys and watches of others by the thousand, and those of the jobs here."""


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

    async def explain(statement: str, before: str) -> str:
        transaction = direct.transaction()
        await transaction.start()
        await direct.execute(names.fill(before))
        plans.clear()
        direct.add_log_listener(listen)
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


@pytest.mark.parametrize("before", ["select 1", USED], ids=["nothing else in use", "everything in use"])
async def test_no_statement_reads_a_table_through(explained, before) -> None:
    for name, statement in STATEMENTS.items():
        plans = await explained(statement, before)
        assert "qml_jobs" in plans
        assert not re.search(r"Seq Scan on qml_jobs(_done|_unique_key|_watched|_recurring)?\b", plans), (
            f"{name}:\n{plans}"
        )
        assert rows_read(plans) < 1_000, f"{name}:\n{plans}"
