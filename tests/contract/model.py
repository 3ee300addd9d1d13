"""The contract as a model: what each verb does to a dict of jobs, by the rules and nothing else."""

from collections import Counter
from dataclasses import dataclass

from qml_nb.job import TRANSITIONS, Job, JobState, may_run_again
from qml_nb.storage.backend import Swept

ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY, SUCCEEDED, FAILED, DELETED = JobState
TTL = {SUCCEEDED: 100, DELETED: 100, FAILED: 200}


@dataclass
class Entry:
    """What the model knows of a job. Instants are seconds on its clock."""

    id: str
    queue: str
    priority: int
    max_retries: int
    state: JobState
    due: float = 0
    attempt: int = 0
    worker: str | None = None
    claim_id: int = 0
    lease: float = 0
    expires: float = 0


class Model:
    """All jobs by id, the paused queues, and the clock."""

    def __init__(self) -> None:
        self.jobs: dict[str, Entry] = {}
        self.paused: set[str] = set()
        self.claim_ids: set[int] = set()
        self.now = 0.0

    def put(self, job: Job, state: JobState, due: float = 0) -> bool:
        new = job.id not in self.jobs
        if new:
            self.jobs[job.id] = Entry(job.id, job.queue, job.priority, job.max_retries, state, due)
        return new

    def waiting(self, queues: list[str] | None = None) -> list[str]:
        found = [job for job in self.jobs.values() if job.state is ENQUEUED and job.queue not in self.paused]
        found = [job for job in found if not queues or job.queue in queues]
        return [job.id for job in sorted(found, key=lambda job: (-job.priority, job.id))]

    def claim(self, worker: str, limit: int, queues: list[str], lease: float) -> list[str]:
        taken = self.waiting(queues)[:limit]
        for job in (self.jobs[job_id] for job_id in taken):
            job.state, job.worker, job.lease, job.attempt = PROCESSING, worker, self.now + lease, job.attempt + 1
        return taken

    def note(self, claims: list[Job]) -> bool:
        """Note the numbers of new claims. False: one was given before."""
        numbers = {claim.claim_id for claim in claims}
        for claim in claims:
            self.jobs[claim.id].claim_id = claim.claim_id
        new = len(numbers) == len(claims) and not numbers & self.claim_ids
        self.claim_ids |= numbers
        return new

    def held(self, claim: Job) -> Entry | None:
        job = self.jobs.get(claim.id)
        holds = job and (job.state, job.claim_id) == (PROCESSING, claim.claim_id)
        return job if holds else None

    def settle(self, claim: Job, to: JobState, delay: float) -> bool:
        job = self.held(claim)
        if job:
            self.move(job, to)
            job.due = self.now + delay
            job.attempt -= to is ENQUEUED
        return job is not None

    def renew(self, claim: Job, lease: float) -> bool:
        job = self.held(claim)
        if job:
            job.lease = self.now + lease
        return job is not None

    def sweep(self) -> Swept:
        jobs = list(self.jobs.values())
        due = [job for job in jobs if job.state in (SCHEDULED, AWAITING_RETRY) and job.due <= self.now]
        late = [job for job in jobs if job.state is PROCESSING and job.lease <= self.now]
        old = [job for job in jobs if job.state in TTL and job.expires <= self.now]
        lost = [job for job in late if not may_run_again(job.attempt, job.max_retries)]
        for job in due + late:
            self.move(job, FAILED if job in lost else ENQUEUED)
        for job in old:
            del self.jobs[job.id]
        return Swept(len(due), len(late) - len(lost), len(lost), len(old))

    def by_hand(self, job_id: str, to: JobState, expected: set[JobState]) -> bool:
        job = self.jobs.get(job_id)
        if job is None or job.state not in expected:
            return False
        self.move(job, to)
        if to is ENQUEUED:
            job.attempt = 0
        return True

    def move(self, job: Entry, to: JobState) -> None:
        assert to in TRANSITIONS[job.state]
        job.state, job.expires = to, self.now + TTL.get(to, 0)
        if to in (ENQUEUED, AWAITING_RETRY):
            job.worker = None

    def counts(self) -> Counter[tuple[str, JobState]]:
        return Counter((job.queue, job.state) for job in self.jobs.values())
