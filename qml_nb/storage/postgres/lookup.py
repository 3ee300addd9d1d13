"""How jobs of the PostgreSQL storage are looked up, counted and watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qml_nb.storage.postgres.records import PostgresRecords
from qml_nb.storage.postgres.rows import DONE, NUMBER, STATES, is_id, job_of, place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.job import Job, JobFilter
    from qml_nb.states import JobState


class PostgresLookup(PostgresRecords):
    """The verbs of `Backend` that read jobs."""

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """See `Backend.get`."""
        return await self._found_by("get", ids)

    async def watch(self, ids: Sequence[str], seconds: float) -> list[Job | None]:
        """See `Backend.watch`."""
        return await self._found_by("watch", ids, seconds)

    async def _found_by(self, verb: str, ids: Sequence[str], *arguments: float) -> list[Job | None]:
        asked = [job_id for job_id in ids if is_id(job_id)]
        rows = await self._again(verb, DONE, asked, *arguments) if asked else []
        found = {job.id: job for job in map(job_of, rows)}
        return [found.get(job_id) for job_id in ids]

    async def find(self, wanted: JobFilter, limit: int, after: str | None = None) -> list[Job]:
        """See `Backend.find`."""
        state = None if wanted.state is None else NUMBER[wanted.state]
        below = None if after is None else place(after)
        rows = await self._again("find", DONE, state, wanted.queue, wanted.method, below, limit)
        return [job_of(row) for row in rows]

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """See `Backend.counts`."""
        rows = await self._again("counts", "queue, state, jobs")
        return {(queue, STATES[state]): jobs for queue, state, jobs in rows}
