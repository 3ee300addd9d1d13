"""A server that writes to its disk before it answers may be killed and restarted under load: nothing is lost."""

from __future__ import annotations

import pytest

from qml_nb.servers import LocalServer
from tests.faults.conftest import Connect
from tests.faults.load import load


@pytest.mark.parametrize("end", ["kill", "terminate"])
async def test_a_restart_under_load_loses_nothing(connect: Connect, durable: LocalServer, end: str) -> None:
    async with load(connect(durable.url)) as flow:
        for _ in range(3):
            getattr(durable, end)()
            durable.restart()
            await flow.goes_on()
    print(f"\n{end}: {len(flow.stored)} stored, {len(flow.unsure)} unsure, {flow.runs.total()} runs")


async def test_what_was_refused_may_be_stored_and_what_was_answered_is(connect: Connect, durable: LocalServer) -> None:
    async with load(connect(durable.url, command_timeout=0.3)) as flow:
        durable.kill()
        await flow.is_refused()
        durable.restart()
        await flow.goes_on()
