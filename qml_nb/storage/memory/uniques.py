"""Which job each unique key is taken by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qml_nb.job import Job


class Uniques:
    """The keys that are taken. Called under the storage's lock."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, float | None]] = {}
        """key → (id of its job, until); until None, the key is taken while the job is unfinished."""

    def holder(self, key: str, now: float) -> str | None:
        """Return the id of the job by which the key is taken; None: it is free."""
        job_id, until = self.held.get(key, (None, None))
        return None if until is not None and until <= now else job_id

    def is_free(self, job: Job, now: float) -> bool:
        """Whether no other job has taken this one's key, if it has any."""
        return job.unique_key is None or self.holder(job.unique_key, now) in (None, job.id)

    def take(self, job: Job, now: float) -> bool:
        """Let the job take its key, if it has any. False: another one has it."""
        if job.unique_key is not None:
            if not self.is_free(job, now):
                return False
            self.held[job.unique_key] = job.id, None if job.unique_for is None else now + job.unique_for
        return True

    def finish(self, job: Job) -> None:
        """Free the key of a job that has ended, unless that is taken for longer."""
        if job.unique_for is None:
            self.erase(job)

    def erase(self, job: Job) -> None:
        """Free the key that the job has taken."""
        if job.unique_key is not None and self.held.get(job.unique_key, (None,))[0] == job.id:
            del self.held[job.unique_key]

    def forget(self, now: float) -> None:
        """Forget the keys whose time is up."""
        for key in [key for key, (_, until) in self.held.items() if until is not None and until <= now]:
            del self.held[key]
