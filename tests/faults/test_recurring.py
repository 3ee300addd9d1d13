"""Servers that fire a schedule are killed with -9: no instant is left out, and none comes twice."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from qml_nb import Job
from tests.faults.conftest import Connect
from tests.faults.load import until
from tests.faults.test_kill_minus_nine import processes


async def test_every_second_comes_once_though_servers_are_killed(connect: Connect, url: str, tmp_path: Path) -> None:
    where = {"schema_name": "qml"} if url.startswith("postgresql:") else {"key_prefix": "qml"}
    storage = connect(url, **where)
    with processes(url, tmp_path) as workers:
        await until(lambda: workers.lines(workers.paths[-1])[1] == [] and workers.running)
        await storage.schedule_recurring("tick", "* * * * * *", Job("note", [0]))
        for many in range(1, 7):

            async def enough(many: int = many) -> bool:
                return len(await storage.list(method="note")) >= many

            await until(enough)
            workers.kill_and_replace()
        await storage.remove_recurring("tick")
    meant = sorted(job.created_ts for job in await storage.list(method="note", limit=1_000))
    assert len(meant) >= 6
    assert {later - earlier for earlier, later in pairwise(meant)} == {1.0}
