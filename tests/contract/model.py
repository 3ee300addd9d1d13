"""The contract as a model: what each verb does to a dict of jobs, by the rules and nothing else."""

from collections import Counter
from dataclasses import dataclass

from qml_nb.config import QueueConfig
from qml_nb.job import Job
from qml_nb.states import FINAL, TRANSITIONS, JobState, may_run_again
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
    unique_key: str | None
    unique_for: float | None
    due: float = 0
    attempt: int = 0
    worker: str | None = None
    claim_id: int = 0
    lease: float = 0
    expires: float = 0


class Model:
    """All jobs by id, the keys that are taken, what the queues may do, and the clock."""

    def __init__(self) -> None:
        self.jobs: dict[str, Entry] = {}
        self.keys: dict[str, tuple[str, float | None]] = {}
        self.paused: set[str] = set()
        self.limits: dict[str, QueueConfig] = {}
        self.claim_ids: set[int] = set()
        self.now = 0.0

    def put(self, job: Job, state: JobState, due: float = 0) -> bool | None:
        if job.id in self.jobs or (job.unique_key and self.holder(job.unique_key)):
            return False
        if state is ENQUEUED and self.is_full(job.queue):
            return None
        new = Entry(job.id, job.queue, job.priority, job.max_retries, state, job.unique_key, job.unique_for, due)
        self.jobs[job.id] = new
        self.take_key(new)
        if state is ENQUEUED:
            self.drop_oldest(job.queue)
        return True

    # -- what queues may do

    def of(self, queue: str, state: JobState) -> list[Entry]:
        """A queue's jobs in that state, in the order in which they come out."""
        found = [job for job in self.jobs.values() if (job.queue, job.state) == (queue, state)]
        return sorted(found, key=lambda job: (-job.priority, job.id))

    def is_full(self, queue: str) -> bool:
        limits = self.limits.get(queue, QueueConfig())
        most = limits.max_waiting
        return most is not None and limits.when_full == "reject" and len(self.of(queue, ENQUEUED)) >= most

    def drop_oldest(self, queue: str) -> None:
        limits = self.limits.get(queue, QueueConfig())
        if limits.max_waiting is not None and limits.when_full == "drop_oldest":
            found = sorted(self.of(queue, ENQUEUED), key=lambda job: (job.priority, job.id))
            for job in found[: -limits.max_waiting]:
                self.move(job, DELETED)

    def waiting(self, queues: list[str] | None = None, in_turn: bool = False) -> list[str]:
        names = list(dict.fromkeys(queues or [])) or sorted({job.queue for job in self.jobs.values()})
        offered: list[Entry] = []
        for name in names:
            most = self.limits.get(name, QueueConfig()).concurrency
            turns = None if most is None else max(most - len(self.of(name, PROCESSING)), 0)
            offered += [] if name in self.paused else self.of(name, ENQUEUED)[:turns]
        if not (in_turn and queues):
            offered.sort(key=lambda job: (-job.priority, job.id))
        return [job.id for job in offered]

    def claim(self, worker: str, limit: int, queues: list[str], lease: float, in_turn: bool) -> list[str]:
        taken = self.waiting(queues, in_turn)[:limit]
        for job in (self.jobs[job_id] for job_id in taken):
            job.state, job.worker, job.lease, job.attempt = PROCESSING, worker, self.now + lease, job.attempt + 1
        return taken

    # -- unique keys

    def holder(self, key: str) -> str | None:
        job_id, until = self.keys.get(key, (None, None))
        return None if until is not None and until <= self.now else job_id

    def take_key(self, job: Entry) -> None:
        if job.unique_key:
            self.keys[job.unique_key] = job.id, None if job.unique_for is None else self.now + job.unique_for

    def free_key(self, job: Entry) -> None:
        if job.unique_key and self.keys.get(job.unique_key, (None, None))[0] == job.id:
            del self.keys[job.unique_key]

    # -- what becomes of jobs

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
        if job.state in FINAL and to not in FINAL and job.unique_key and job.unique_for is None:
            if self.holder(job.unique_key) not in (None, job.id):
                return False
            self.take_key(job)
        self.move(job, to)
        if to is ENQUEUED:
            job.attempt = 0
        return True

    def erase(self, job_id: str) -> bool:
        job = self.jobs.pop(job_id, None)
        if job:
            self.free_key(job)
        return job is not None

    def move(self, job: Entry, to: JobState) -> None:
        assert to in TRANSITIONS[job.state]
        job.state, job.expires = to, self.now + TTL.get(to, 0)
        if to in (ENQUEUED, AWAITING_RETRY):
            job.worker = None
        if to in FINAL and job.unique_for is None:
            self.free_key(job)

    def counts(self) -> Counter[tuple[str, JobState]]:
        return Counter((job.queue, job.state) for job in self.jobs.values())
