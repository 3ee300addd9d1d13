"""The ways to store jobs that the guide compares with each other, written plainly, on a table as it has one.

They live in its rows and nowhere else: each call of the library is one statement for many jobs.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from qml_nb.job import Job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TABLE = """
create table guide_jobs (
  id uuid primary key, method text not null, arguments jsonb not null, created_at timestamptz not null,
  state jsonb not null, queue text not null, priority integer not null
)
"""
_ONE = """
insert into guide_jobs (id, method, arguments, created_at, state, queue, priority)
values ($1, $2, $3, now(), $4, $5, $6)
"""
_MANY = """
insert into guide_jobs (id, method, arguments, created_at, state, queue, priority)
select u.id, u.method, u.arguments, now(), u.state, u.queue, u.priority
  from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::jsonb[], $5::text[], $6::integer[])
       u(id, method, arguments, state, queue, priority)
"""
_NAIVE = {"statement_cache_size": 0}  # else asyncpg prepares every statement
_PREPARED = {"min_size": 50, "max_size": 50}


async def execute(url: str, statement: str) -> None:
    """Run one statement that answers nothing."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def insert_rate(url: str, jobs: int, per_task: int, *, prepared: bool = False) -> float:
    """Return how many jobs a second tasks store, each waiting for one INSERT before the next.

    Args:
        url: the server; the table is made.
        jobs: how many in all.
        per_task: how many each task stores.
        prepared: whether on 50 connections, with prepared statements, and without asyncpg's reset after each of them;
            else on 10 and with it.
    """
    async with _pool(url, **({**_PREPARED, "reset": _keep} if prepared else _NAIVE)) as pool:

        async def produce() -> None:
            for number in range(per_task):
                await pool.execute(_ONE, *_record(number))

        began = perf_counter()
        await asyncio.gather(*(produce() for _ in range(jobs // per_task)))
        return jobs / (perf_counter() - began)


async def batch_rate(url: str, jobs: int, size: int) -> float:
    """Return how many jobs a second one caller stores by statements of so many rows."""
    async with _pool(url) as pool:
        began = perf_counter()
        for _ in range(0, jobs, size):
            await pool.execute(_MANY, *zip(*(_record(number) for number in range(size)), strict=True))
        return jobs / (perf_counter() - began)


@asynccontextmanager
async def _pool(url: str, **options: Any) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(url, **options) as pool:
        await pool.execute(f"drop table if exists guide_jobs; {TABLE}")
        yield pool


async def _keep(_: Any) -> None:
    """Reset nothing."""


def _record(number: int) -> tuple[Any, ...]:
    job = Job("work", [number])
    return job.id, job.method, job.args_json.decode(), '{"type": "enqueued"}', job.queue, job.priority
