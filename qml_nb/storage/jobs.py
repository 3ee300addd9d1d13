"""What callers look up and move by hand: the part of `Storage` that is about single jobs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from qml_nb.errors import JobNotFound, StorageUnavailable
from qml_nb.job import Job, JobFilter
from qml_nb.states import AWAITING_RETRY, DELETED, ENQUEUED, FAILED, LIVE, SCHEDULED, JobState
from qml_nb.storage.backend import CANCELLED
from qml_nb.storage.checks import checked_id, checked_job, checked_state
from qml_nb.validate import check_int, check_names, posix

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from qml_nb.storage.backend import Backend

_Jobs: TypeAlias = list[Job]  # `list` is a method here
_BY_HAND = (FAILED, SCHEDULED, AWAITING_RETRY)
_PAGE = 1_000


class Jobs:
    """Methods of `Storage`."""

    backend: Backend

    # -- jobs are looked at

    async def get(self, job_id: str) -> Job | None:
        """Return the job as it stands; None if there is none with that id."""
        [job] = await self.backend.get([checked_id(job_id)])
        return job

    async def list(
        self,
        state: JobState | str | None = None,
        queue: str | None = None,
        method: str | None = None,
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> _Jobs:
        """Return jobs, newest first, `limit` a page. For the next page pass the id of the last job as `after`."""
        wanted = JobFilter(None if state is None else checked_state(state), queue, method)
        return await self.backend.find(wanted, check_int("limit", limit, 1), after)

    async def get_job_counts(self, queue: str | None = None) -> dict[JobState, int]:
        """Return how many jobs are stored in each state, exactly, over all queues or in one."""
        counts = dict.fromkeys(JobState, 0)
        for (name, state), many in (await self.backend.counts()).items():
            if queue is None or name == queue:
                counts[state] += many
        return counts

    async def get_queue_counts(self) -> dict[str, dict[JobState, int]]:
        """Return how many jobs are stored, by queue and state, exactly."""
        queues: dict[str, dict[JobState, int]] = {}
        for (name, state), many in sorted((await self.backend.counts()).items()):
            queues.setdefault(name, dict.fromkeys(JobState, 0))[state] = many
        return queues

    async def get_available_jobs(self, limit: int = 10, queues: Iterable[str] | None = None) -> _Jobs:
        """Return the jobs that would be claimed next, in that order, without claiming them."""
        return await self.backend.peek(check_names("queues", queues), check_int("limit", limit, 1))

    # -- jobs are moved by hand

    async def update(self, job: Job) -> Job:
        """Write what `job.replace(…)` changed; state, claim and history stay as stored. Returns the job as stored.

        Raises:
            JobNotFound: no job with that id is stored.
        """
        await self.backend.update([checked_job(job)], None)
        return await self._found(job.id)

    async def update_if_state(self, job: Job, expected: JobState | str) -> bool:
        """Write what `job.replace(…)` changed, if the stored job is in the expected state. False: it is not.

        Raises:
            JobNotFound: no job with that id is stored.
        """
        [written] = await self.backend.update([checked_job(job)], checked_state(expected))
        if not written:
            await self._found(job.id)
        return written

    async def delete(self, job_id: str) -> bool:
        """Remove a job in any state, without a trace; if it runs, its answer is refused. False: no such job."""
        [erased] = await self.backend.erase([checked_id(job_id)])
        return erased

    async def cancel(self, job_id: str, *, now: datetime | None = None) -> bool:
        """Move an unfinished job to deleted, where it is kept for a while. False: it was finished, or there is none.

        A running one loses its lease, and its server is told to stop it; one that does not hear it does so at the next renewal.
        """
        [moved] = await self.backend.move([checked_id(job_id)], DELETED, LIVE, now=posix(now))
        if moved:
            with suppress(StorageUnavailable):
                await self.backend.publish(CANCELLED, job_id.encode())
        return moved

    async def requeue(self, job_id: str, *, now: datetime | None = None) -> bool:
        """Enqueue a failed, a scheduled or a retrying job at once, with its attempts counted afresh. False: not so."""
        [moved] = await self.backend.move([checked_id(job_id)], ENQUEUED, _BY_HAND, now=posix(now))
        return moved

    async def requeue_all(
        self,
        state: JobState | str = FAILED,
        queue: str | None = None,
        method: str | None = None,
        *,
        limit: int | None = None,
        now: datetime | None = None,
    ) -> int:
        """Requeue the jobs that `list` shows for the state, queue and method, the newest first. Returns how many."""
        wanted, moved, after = JobFilter(checked_state(state), queue, method), 0, None
        while limit is None or moved < limit:
            page = await self.backend.find(wanted, _PAGE if limit is None else min(_PAGE, limit - moved), after)
            if not page:
                break
            after = page[-1].id
            moved += sum(await self.backend.move([job.id for job in page], ENQUEUED, _BY_HAND, now=posix(now)))
        return moved

    async def _found(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job
