"""How jobs come into the PostgreSQL storage: by a function, many by COPY, and in transactions of others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from qml_nb.errors import InvalidValue
from qml_nb.states import DROPPED
from qml_nb.storage.postgres.queues import PostgresQueues
from qml_nb.storage.postgres.records import due_ts, packed
from qml_nb.storage.postgres.rows import ENTERED, NO_JOBS, as_columns, as_entered, how_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.job import Job
    from qml_nb.storage.backend import Recurring

UNFIT = "QML02"
"""The SQLSTATE by which `push` says that the transaction would not see what was settled since it began."""
_BOUNDED = "QML04"
"""The SQLSTATE by which `enter` says that a queue has a bound."""
_SEES_NO_MORE = "in another one a job that was settled meanwhile could be stored again"
_WORTH_A_COPY = 500  # jobs from which on COPY, which takes four round trips, is the quicker way in


class _NoCopy(Exception):
    """The jobs can't be copied: some were there before, or a queue has a bound."""


class PostgresAdmission(PostgresQueues):
    """The verbs of `Backend` by which jobs come in."""

    async def push(self, jobs: Sequence[Job], *, each: bool = False, now: float | None = None) -> Sequence[bool | None]:
        """See `Backend.push`."""

        async def attempt(again: bool) -> list[bool | None]:
            answers = _answers(jobs, *await self._push(jobs, each, now))
            return await self._are_there(jobs, answers) if again else answers

        return await self._persist(attempt)

    async def _push(self, jobs: Sequence[Job], each: bool, now: float | None) -> tuple[Any, Any]:
        if len(jobs) >= _WORTH_A_COPY and self.config.max_jobs is None and not _has_key(jobs):
            with suppress(_NoCopy):
                return await self._copy(sorted(jobs, key=lambda job: job.id)), None  # as everybody locks
        [(stored, refused)] = await self._rows("push", "stored, refused", *self._arguments(jobs, each, now))
        return stored, refused

    def _arguments(self, jobs: Sequence[Job], each: bool, now: float | None) -> tuple[Any, ...]:
        config = self.config
        return *as_columns(jobs), config.max_jobs, each, now, config.completed_job_ttl, DROPPED

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
                        raise _NoCopy from None
                try:
                    new: Sequence[Any] | None = await connection.fetchval(
                        enter, [job.id for job in jobs], *how_many(jobs)
                    )
                except asyncpg.PostgresError as error:
                    if error.sqlstate != _BOUNDED:
                        raise
                    raise _NoCopy from None
                return new

        return await link.again_in_conflict(copy)

    async def push_within(self, connection: Any, jobs: Sequence[Job]) -> list[bool]:
        """Do what `push` does, by somebody else's connection, in the transaction that is open there."""
        await self._link()  # made, if need be, in a transaction of its own
        arguments = self._arguments(jobs, False, None)
        statement = self._names.call("push", "stored, refused", len(arguments), commits=False)
        try:
            with self._counted():
                stored, refused = await connection.fetchrow(statement, *arguments)
        except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError):
            raise InvalidValue("connection", "to lead to the storage's database", connection) from None
        except asyncpg.PostgresError as error:
            if error.sqlstate != UNFIT:
                raise
            raise InvalidValue(
                "connection", "to be in a read committed transaction", error.detail, _SEES_NO_MORE
            ) from None
        return [bool(new) for new in _answers(jobs, stored, refused)]

    async def _are_there(self, jobs: Sequence[Job], answers: list[bool | None]) -> list[bool | None]:
        """Return the answers of a push that was sent again: what the first try stored was new, too."""
        known = [job.id for job, new in zip(jobs, answers, strict=True) if new is False]
        if not known:
            return answers
        stored = {job.id: job for job in await self.get(known) if job is not None}
        told: set[str] = set()
        for at, job in enumerate(jobs):
            if answers[at] is not None:
                answers[at] = (answers[at] or _is_same(job, stored.get(job.id))) and job.id not in told
                told.add(job.id)
        return answers

    async def holders(self, keys: Sequence[str], *, now: float | None = None) -> list[str | None]:
        """See `Backend.holders`."""
        held = {key: str(holder) for key, holder in await self._again("holders", "held, holder", list(keys), now)}
        return [held.get(key) for key in keys]

    async def swap_recurring(
        self, old: Recurring | None, new: Recurring, jobs: Sequence[Job] = (), *, now: float | None = None
    ) -> bool:
        """See `Backend.swap_recurring`."""
        schedules = new.id, None if old is None else packed(old), packed(new), due_ts(new)
        columns = as_columns(jobs) if jobs else NO_JOBS
        return bool(await self._value("swap_recurring", *schedules, *columns, self.config.max_jobs, now))


def _has_key(jobs: Sequence[Job]) -> bool:
    return any(job.extras is not None and job.extras.unique_key is not None for job in jobs)


def _answers(jobs: Sequence[Job], stored: Sequence[Any] | None, refused: Sequence[str] | None) -> list[bool | None]:
    """Return the answers by position: of equal ids in one call the first is the new one."""
    if stored is None:
        return [True] * len(jobs)
    left, full = set(map(str, stored)), set(refused or ())
    answers: list[bool | None] = []
    for job in jobs:
        answers.append(job.id in left or (None if job.id in full else False))
        left.discard(job.id)
    return answers


def _is_same(job: Job, stored: Job | None) -> bool:
    return stored is not None and (job.method, job.args_json, job.created_ts) == (
        stored.method,
        stored.args_json,
        stored.created_ts,
    )
