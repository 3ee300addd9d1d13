"""The PostgreSQL storage: a verb is a function of the database, and each call of it is one statement for many jobs.

`schema.sql` says what lies where, and each other `.sql` file is what it is named after. The functions carry the settings
that pin their plans, so these hold on any connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from qml_nb.config import PostgresConfig
from qml_nb.errors import InvalidValue, StorageClosed
from qml_nb.job import CRASH_ATTEMPTS, FAILED, FINAL, LOST_LEASE, TRANSITIONS, JobState
from qml_nb.storage.backend import Swept
from qml_nb.storage.checks import new_jobs
from qml_nb.storage.gathered import GatheredStorage, coroutine_function
from qml_nb.storage.postgres.records import PostgresRecords
from qml_nb.storage.postgres.rows import (
    DONE,
    ENTERED,
    LIVE,
    NUMBER,
    STATES,
    as_columns,
    as_entered,
    as_updated,
    how_many,
    in_order,
    is_id,
    job_of,
    place,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable, Sequence
    from datetime import datetime

    from qml_nb.job import Job, JobFilter, Outcome

_BATCH = 1_000  # outcomes a statement
UNFIT = "QML02"
"""The SQLSTATE by which `push` says that the transaction would not see what was settled since it began."""
_SEES_NO_MORE = "in another one a job that was settled meanwhile could be stored again"
_WORTH_A_COPY = 500  # jobs from which on COPY, which takes four round trips, is the quicker way in


class _Known(Exception):
    """Among the jobs to copy are some that were there before."""


class PostgresStorage(GatheredStorage):
    """A storage on PostgreSQL: `PostgresStorage("postgresql://user@host/database")`; see `PostgresConfig`.

    Callable from any thread and any event loop; it has connections of its own in each.
    """

    def __init__(self, config: PostgresConfig | str | None = None, **options: Any) -> None:
        if isinstance(config, str):
            config, options = None, {"database_url": config, **options}
        self._postgres = PostgresBackend(PostgresConfig.of(config, options))
        super().__init__(self._postgres)

    @coroutine_function
    def enqueue(self, job: Job, *, connection: Any = None) -> Coroutine[Any, Any, bool]:
        """Store a new job; it is stored (committed) when this is answered. False: its id or its unique key was taken before.

        Args:
            job: a new job.
            connection: an asyncpg connection to the same database. The job is stored in the transaction that is open there:
                it exists, and workers are woken, if and when that commits (`totals` count it at once). With `max_jobs`
                every other push waits until then. Without one, it is on its way at once, together with
                those of this event loop's other callers; what is returned is then a future that asyncio takes for a
                coroutine too: `gather` makes no task of it, which is half of what the call would cost.

        Raises:
            InvalidJob: this is no job, or not a new one.
            CapacityExceeded: the storage is full.
            StorageUnavailable: the server can't be reached, or did not answer.
            asyncpg.PostgresError: what the caller's connection raises is the caller's, whose transaction has failed.
        """
        return super().enqueue(job) if connection is None else self._enqueue_within(connection, job)

    async def enqueue_many(self, jobs: Iterable[Job], *, connection: Any = None, now: datetime | None = None) -> int:
        """Store new jobs, all or none. Returns how many; those whose id or key was taken before don't count.

        Takes a `connection` as `enqueue` does, and raises the same.
        """
        if connection is None:
            return await super().enqueue_many(jobs, now=now)
        return sum(await self._push_within(connection, new_jobs(jobs)))

    async def _enqueue_within(self, connection: Any, job: Job) -> bool:
        return (await self._push_within(connection, new_jobs([job])))[0]

    async def _push_within(self, connection: Any, jobs: Sequence[Job]) -> Sequence[bool]:
        if self.closed:
            raise StorageClosed
        if not isinstance(connection, (asyncpg.Connection, PoolConnectionProxy)):
            raise InvalidValue(
                "connection", "to be an asyncpg connection", connection, "as asyncpg.connect(...) gives it"
            )
        answers = await self._postgres.push_within(connection, jobs) if jobs else []
        stored = sum(answers)
        self.totals.pushed += stored
        return answers


class PostgresBackend(PostgresRecords):
    """The verbs of `Backend` on functions of the database."""

    name = "postgres"
    round_trip = True

    # -- jobs come in, are claimed, and end

    async def push(self, jobs: Sequence[Job], *, each: bool = False, now: float | None = None) -> Sequence[bool | None]:
        """See `Backend.push`."""

        async def attempt(again: bool) -> list[bool]:
            answers = _new(jobs, await self._push(jobs))
            return await self._are_there(jobs, answers) if again else answers

        return await self._persist(attempt)

    async def _push(self, jobs: Sequence[Job]) -> Sequence[Any] | None:
        if len(jobs) >= _WORTH_A_COPY and self.config.max_jobs is None:
            with suppress(_Known):
                return await self._copy(sorted(jobs, key=lambda job: job.id))  # in the order in which everybody locks
        stored: Sequence[Any] | None = await self._value("push", *as_columns(jobs), self.config.max_jobs)
        return stored

    async def _copy(self, jobs: Sequence[Job]) -> Sequence[Any] | None:
        link, names = await self._link(), self._names
        enter = names.call("enter", "enter", 4)

        async def copy() -> Sequence[Any] | None:
            async with link.transaction() as connection:
                async with asyncio.timeout(
                    self.config.command_timeout
                ):  # asyncpg's own does not end a COPY that is stuck
                    try:
                        await connection.copy_records_to_table(
                            names.table, schema_name=names.schema, columns=ENTERED, records=as_entered(jobs)
                        )
                    except asyncpg.UniqueViolationError:
                        raise _Known from None
                new: Sequence[Any] | None = await connection.fetchval(enter, [job.id for job in jobs], *how_many(jobs))
                return new

        return await link.again_in_conflict(copy)

    async def push_within(self, connection: Any, jobs: Sequence[Job]) -> list[bool]:
        """Do what `push` does, by somebody else's connection, in the transaction that is open there."""
        await self._link()  # made, if need be, in a transaction of its own
        arguments = (*as_columns(jobs), self.config.max_jobs)
        statement = self._names.call("push", "push", len(arguments), commits=False)
        try:
            with self._counted():
                stored = await connection.fetchval(statement, *arguments)
        except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError):
            raise InvalidValue("connection", "to lead to the storage's database", connection) from None
        except asyncpg.PostgresError as error:
            if error.sqlstate != UNFIT:
                raise
            raise InvalidValue(
                "connection", "to be in a read committed transaction", error.detail, _SEES_NO_MORE
            ) from None
        return _new(jobs, stored)

    async def _are_there(self, jobs: Sequence[Job], answers: list[bool]) -> list[bool]:
        """Return the answers of a push that was sent again: what the first try stored was new, too."""
        refused = [job.id for job, new in zip(jobs, answers, strict=True) if not new]
        if not refused:
            return answers
        stored = {job.id: job for job in await self.get(refused) if job is not None}
        known: set[str] = set()
        for at, job in enumerate(jobs):
            answers[at] = (answers[at] or _is_same(job, stored.get(job.id))) and job.id not in known
            known.add(job.id)
        return answers

    async def claim(
        self,
        worker: str,
        queues: Collection[str] | None,
        limit: int,
        lease: float,
        *,
        in_turn: bool = False,
        now: float | None = None,
    ) -> list[Job]:
        """See `Backend.claim`."""
        rows = await self._rows("claim", LIVE, worker, None if queues is None else list(queues), limit, lease, now)
        jobs = [job_of(row) for row in rows]
        jobs.sort(key=in_order)
        return jobs

    async def settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> list[bool]:
        """See `Backend.settle`."""
        answers: list[bool] = []
        for first in range(0, len(outcomes), _BATCH):
            answers += await self._settle(outcomes[first : first + _BATCH], now)
        return answers

    async def _settle(self, outcomes: Sequence[Outcome], now: float | None) -> list[bool]:
        told = {(each.job_id, each.claim_id): each for each in reversed(outcomes) if is_id(each.job_id)}
        if not told:
            return [False] * len(outcomes)
        batch = sorted(told.values(), key=lambda each: each.job_id)
        columns: tuple[list[Any], ...] = (
            [each.job_id for each in batch],
            [each.claim_id for each in batch],
            [NUMBER[each.to] for each in batch],
            [None if each.result_json is None else each.result_json.decode() for each in batch],
            [each.error for each in batch],
            [each.delay for each in batch],
        )
        config = self.config

        async def attempt(again: bool) -> set[Outcome] | set[tuple[str, int]]:
            ttls = config.completed_job_ttl, config.failed_job_ttl
            [(written, claims)] = await self._rows("settle", "written, held", *columns, now, *ttls)
            if written is None:
                return set(told)
            held = {(str(job_id), claim) for job_id, claim in zip(written, claims or (), strict=True)}
            if again:
                held |= await self._are_settled(told.keys() - held, told)
            return held

        held = await self._persist(attempt)
        answers: list[bool] = []
        for each in outcomes:
            key = (each.job_id, each.claim_id)
            answers.append(key in held)
            held.discard(key)
        return answers

    async def _are_settled(
        self, refused: Collection[tuple[str, int]], told: dict[tuple[str, int], Outcome]
    ) -> set[Any]:
        """Return those that the first try of a settlement has written."""
        keys = list(refused)
        jobs = await self.get([job_id for job_id, _ in keys])
        return {
            key
            for key, job in zip(keys, jobs, strict=True)
            if job is not None and job.claim_id == key[1] and job.state == told[key].to
        }

    async def renew(self, jobs: Sequence[Job], lease: float, *, now: float | None = None) -> list[bool]:
        """See `Backend.renew`."""
        ids, claims = [job.id for job in jobs], [job.claim_id for job in jobs]
        rows = await self._again("renew", "job_id, held", ids, claims, lease, now)
        held = {(str(job_id), claim) for job_id, claim in rows}
        return [(job.id, job.claim_id) in held for job in jobs]

    async def sweep(self, limit: int, *, now: float | None = None) -> Swept:
        """See `Backend.sweep`."""
        config = self.config
        rows = await self._rows(
            "sweep",
            "promoted, reclaimed, failed, pruned",
            limit,
            now,
            config.failed_job_ttl,
            config.max_finished_jobs,
            CRASH_ATTEMPTS,
            LOST_LEASE,
        )
        return Swept(*rows[0])

    # -- jobs are looked at, and moved by hand

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """See `Backend.get`."""
        asked = [job_id for job_id in ids if is_id(job_id)]
        rows = await self._again("get", DONE, asked) if asked else []
        found = {job.id: job for job in map(job_of, rows)}
        return [found.get(job_id) for job_id in ids]

    async def find(self, wanted: JobFilter, limit: int, after: str | None = None) -> list[Job]:
        """See `Backend.find`."""
        state = None if wanted.state is None else NUMBER[wanted.state]
        below = None if after is None else place(after)
        rows = await self._again("find", DONE, state, wanted.queue, wanted.method, below, limit)
        return [job_of(row) for row in rows]

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        rows = await self._again("peek", LIVE, None if queues is None else list(queues), limit)
        return [job_of(row) for row in rows]

    async def move(
        self, ids: Sequence[str], to: JobState, expected: Collection[JobState], *, now: float | None = None
    ) -> list[bool]:
        """See `Backend.move`."""
        allowed = [NUMBER[state] for state in expected if to in TRANSITIONS[state]]
        ttl = self.config.failed_job_ttl if to is FAILED else self.config.completed_job_ttl if to in FINAL else None
        asked = [job_id for job_id in ids if is_id(job_id)]
        rows = await self._rows("move", "move", asked, NUMBER[to], allowed, now, ttl, self.config.max_jobs)
        return _by_id(ids, rows)

    async def update(self, jobs: Sequence[Job], expected: JobState | None) -> list[bool]:
        """See `Backend.update`."""
        state = None if expected is None else NUMBER[expected]
        rows = await self._again("update", "update", *as_updated(jobs), state)
        return _by_id([job.id for job in jobs], rows)

    async def erase(self, ids: Sequence[str]) -> list[bool]:
        """See `Backend.erase`."""
        return _by_id(ids, await self._rows("erase", "erase", [job_id for job_id in ids if is_id(job_id)]))

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """See `Backend.counts`."""
        rows = await self._again("counts", "queue, state, jobs")
        return {(queue, STATES[state]): jobs for queue, state, jobs in rows}


def _new(jobs: Sequence[Job], stored: Sequence[Any] | None) -> list[bool]:
    """Return the answers by position: of equal ids in one call the first is the new one."""
    if stored is None:
        return [True] * len(jobs)
    left = {str(job_id) for job_id in stored}
    answers = []
    for job in jobs:
        answers.append(job.id in left)
        left.discard(job.id)
    return answers


def _is_same(job: Job, stored: Job | None) -> bool:
    return stored is not None and (job.method, job.args_json, job.created_ts) == (
        stored.method,
        stored.args_json,
        stored.created_ts,
    )


def _by_id(ids: Sequence[str], rows: Sequence[Any]) -> list[bool]:
    done = {str(row[0]) for row in rows}
    return [job_id in done for job_id in ids]
