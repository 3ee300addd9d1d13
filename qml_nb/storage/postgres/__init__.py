"""The PostgreSQL storage: a verb is a function of the database, and each call of it is one statement for many jobs.

`schema.sql` says what lies where, and each other `.sql` file is what it is named after. The functions carry the settings
that pin their plans, so these hold on any connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from qml_nb.config import PostgresConfig
from qml_nb.errors import InvalidValue, StorageClosed
from qml_nb.states import CRASH_ATTEMPTS, FAILED, FINAL, LOST_LEASE, TRANSITIONS, JobState
from qml_nb.storage.backend import DEAD_SERVER, Swept
from qml_nb.storage.checks import new_jobs
from qml_nb.storage.gathered import GatheredStorage, coroutine_function
from qml_nb.storage.postgres.admission import PostgresAdmission
from qml_nb.storage.postgres.rows import LIVE, NUMBER, as_updated, in_order, is_id, job_of

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable, Sequence
    from datetime import datetime

    from qml_nb.job import Job, Outcome, Report

_BATCH = 1_000  # outcomes a statement


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
                every other push waits until then, with a bound of its queue or a unique key every other one there.
                A full queue refuses it, unless it drops its oldest: nobody waits for room in a transaction. Without
                one, it is on its way at once, together with those of this event loop's other callers; what is returned
                is then a future that asyncio takes for a coroutine too: `gather` makes no task of it, which is half of
                what the call would cost.

        Raises:
            InvalidJob: this is no job, or not a new one.
            CapacityExceeded: the storage is full; as QueueFull, its queue is.
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


class PostgresBackend(PostgresAdmission):
    """The verbs of `Backend` on functions of the database."""

    name = "postgres"
    round_trip = True

    # -- jobs are claimed, and end

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
        names = None if queues is None else list(dict.fromkeys(queues))
        in_turn = in_turn and names is not None
        rows = await self._rows("claim", LIVE, worker, names, limit, lease, in_turn, now)
        jobs = [job_of(row) for row in rows]
        jobs.sort(key=in_order)
        if in_turn and names is not None:
            jobs.sort(key=lambda job: names.index(job.queue))
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

    async def report(self, reports: Sequence[Report]) -> list[bool]:
        """See `Backend.report`."""
        newest = {(report.job_id, report.claim_id): report for report in reports if is_id(report.job_id)}
        columns = [list(column) for column in zip(*newest, strict=True)] or [[], []]
        said = [report.progress_json.decode() for report in newest.values()]
        rows = await self._again("report", "job_id, held", *columns, said)
        held = {(str(job_id), claim) for job_id, claim in rows}
        return [(report.job_id, report.claim_id) in held for report in reports]

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
            DEAD_SERVER,
        )
        return Swept(*rows[0])

    # -- jobs are moved by hand

    async def move(
        self, ids: Sequence[str], to: JobState, expected: Collection[JobState], *, now: float | None = None
    ) -> list[bool]:
        """See `Backend.move`."""
        allowed = [NUMBER[state] for state in expected if to in TRANSITIONS[state]]
        ttl = self.config.failed_job_ttl if to is FAILED else self.config.completed_job_ttl if to in FINAL else None
        asked = [job_id for job_id in dict.fromkeys(ids) if is_id(job_id)]
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


def _by_id(ids: Sequence[str], rows: Sequence[Any]) -> list[bool]:
    done = {str(row[0]) for row in rows}
    return [job_id in done for job_id in ids]
