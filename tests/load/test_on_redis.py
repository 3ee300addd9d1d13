"""The load on a real server: it holds its rate, counts a late job by when it left, and outlives an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from time import time

import pytest

from qml_nb import RedisStorage, open_storage
from qml_nb.load import LoadGenerator

LONG = 20.0


@pytest.fixture
async def storage(server) -> AsyncIterator[RedisStorage]:
    async with await open_storage(server.url, command_timeout=0.3) as storage:
        yield storage


async def until(happens) -> None:
    async with asyncio.timeout(LONG):
        while not happens():
            await asyncio.sleep(0.005)


async def test_a_thousand_jobs_a_second_keep_their_intended_instants(storage) -> None:
    generator = LoadGenerator(storage, rate=1_000)
    began = time()
    await generator.run(2.0)
    assert time() - began < 2.5
    assert generator.sent in (1_999, 2_000)
    jobs = sorted(await storage.list(limit=3_000), key=lambda job: job.id)
    assert len(jobs) == generator.sent
    for earlier, later in pairwise(jobs):
        assert later.created_ts - earlier.created_ts == pytest.approx(0.001, abs=1e-5)
    assert generator.late < 0.1 * generator.sent


async def test_a_far_server_makes_no_job_late_that_left_in_time(storage, monkeypatch) -> None:
    push = storage.backend.push

    async def far(jobs, **how):
        await asyncio.sleep(0.04)
        return await push(jobs, **how)

    monkeypatch.setattr(storage.backend, "push", far)
    generator = LoadGenerator(storage, rate=500)
    await generator.run(1.0)
    assert generator.sent in (499, 500)
    assert generator.late < 0.5 * generator.sent  # all of them, if each waited for the answer before


async def test_a_server_that_goes_away_and_comes_back_does_not_end_the_load(storage, server) -> None:
    with LoadGenerator(storage, rate=200) as generator:
        await until(lambda: generator.sent > 20)
        server.kill()
        await until(lambda: generator.lost)
        assert generator.is_running
        server.restart()
        before = generator.sent
        await until(lambda: generator.sent > before + 50)
    assert generator.error is None


async def test_a_short_outage_loses_nothing_and_shows_as_latency(server) -> None:
    async with await open_storage(server.url) as storage:
        with LoadGenerator(storage, rate=200) as generator:
            await until(lambda: generator.sent > 20)
            server.freeze()
            await asyncio.sleep(0.5)
            server.thaw()
            before = generator.sent
            await until(lambda: generator.sent > before + 100)
        assert (generator.lost, generator.refused) == (0, 0)
        jobs = sorted(await storage.list(limit=9_000), key=lambda job: job.id)
        assert len(jobs) == generator.sent
        assert max(later.created_ts - earlier.created_ts for earlier, later in pairwise(jobs)) < 0.006


async def test_the_storage_may_change_while_it_runs_even_away_from_a_server_that_is_dead(server) -> None:
    async with await open_storage(server.url) as old, await open_storage("memory://") as new:
        with LoadGenerator(old, rate=1_000) as generator:
            await until(lambda: generator.sent > 20)
            server.kill()
            await asyncio.sleep(0.2)
            generator.storage = new
            async with asyncio.timeout(1):
                while new.totals.pushed < 100:
                    await asyncio.sleep(0.005)
        assert generator.error is None


async def test_a_burst_arrives_whole(storage) -> None:
    generator = LoadGenerator(storage, rate=0)
    generator.burst(12_345)
    await generator.run(0.01)
    assert generator.sent == storage.totals.pushed == 12_345
    assert sum((await storage.get_job_counts()).values()) == 12_345
