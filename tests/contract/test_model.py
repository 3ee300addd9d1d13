"""Any history of moves leaves a storage where the model of the contract says, step by step."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from qml_nb.config import QueueConfig
from qml_nb.errors import QueueFull
from qml_nb.job import Job
from qml_nb.states import TRANSITIONS, JobState
from tests.clock import at
from tests.contract.model import AWAITING_RETRY, DELETED, ENQUEUED, FAILED, SCHEDULED, SUCCEEDED, TTL, Model
from tests.contract.states import ALL, ids

queues = st.sampled_from("abc")
priorities = st.integers(-1, 1)
workers = st.sampled_from(["one", "two"])
leases = st.sampled_from([5, 20])
keys = st.sampled_from([None, None, "x", "y"])
limits = st.builds(
    QueueConfig,
    concurrency=st.sampled_from([None, 1, 2]),
    max_waiting=st.sampled_from([None, 1, 3]),
    when_full=st.sampled_from(["reject", "drop_oldest"]),
)
UNFINISHED = {state for state, to in TRANSITIONS.items() if DELETED in to} - {SUCCEEDED, FAILED}


class Histories(RuleBasedStateMachine):
    """Does to a storage what it does to the model, and compares what both answer and what both hold.

    `jobs` are all that were ever made, stored or not; `claims` are all that were ever handed out, so that most
    answers come from workers whose claim is over.
    """

    jobs: Bundle[Job] = Bundle("jobs")
    claims: Bundle[Job] = Bundle("claims")

    def __init__(self, connect: Any) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.storage = self.run(connect(completed_job_ttl=TTL[SUCCEEDED], failed_job_ttl=TTL[FAILED]))
        self.model = Model()

    def teardown(self) -> None:
        self.run(self.storage.close())
        self.runner.close()

    @property
    def now(self) -> Any:
        return at(self.model.now)

    @rule(
        target=jobs,
        queue=queues,
        priority=priorities,
        max_retries=st.integers(0, 4),
        key=keys,
        window=st.sampled_from([None, 10.0]),
    )
    def enqueue(self, queue: str, priority: int, max_retries: int, key: str | None, window: float | None) -> Job:
        window = window if key else None
        job = Job("work", queue=queue, priority=priority, max_retries=max_retries, unique_key=key, unique_for=window)
        assert self.push(job) is self.model.put(job, ENQUEUED)
        return job

    def push(self, job: Job) -> bool | None:
        """Enqueue a job; None: its queue is full. Alone, where it does not depend on the clock."""
        if not (job.unique_key or job.queue in self.model.limits):
            return self.run(self.storage.enqueue(job))
        try:
            return self.run(self.storage.enqueue_many([job], now=self.now)) == 1
        except QueueFull:
            return None

    @rule(target=jobs, queue=queues, priority=priorities, delay=st.integers(0, 30), key=keys)
    def schedule(self, queue: str, priority: int, delay: int, key: str | None) -> Job:
        job = Job("work", queue=queue, priority=priority, unique_key=key)
        stored = self.run(self.storage.schedule(job, delay=delay, now=self.now))
        assert stored is self.model.put(job, SCHEDULED, self.model.now + delay)
        return job

    @rule(job=jobs)
    def resend(self, job: Job) -> None:
        assert self.push(job) is self.model.put(job, ENQUEUED)

    @rule(
        target=claims,
        worker=workers,
        limit=st.integers(1, 4),
        names=st.lists(queues, max_size=2),
        lease=leases,
        in_turn=st.booleans(),
    )
    def claim(self, worker: str, limit: int, names: list[str], lease: int, in_turn: bool) -> Any:
        claimed = self.run(
            self.storage.fetch_available_jobs_atomic(worker, limit, names, lease=lease, in_turn=in_turn, now=self.now)
        )
        assert ids(claimed) == self.model.claim(worker, limit, names, lease, in_turn)
        assert self.model.note(claimed)
        return multiple(*claimed)

    @rule(claim=claims)
    def complete(self, claim: Job) -> None:
        assert self.run(self.storage.complete(claim, now=self.now)) is self.model.settle(claim, SUCCEEDED, 0)

    @rule(claim=claims)
    def fail(self, claim: Job) -> None:
        assert self.run(self.storage.fail(claim, "broke", now=self.now)) is self.model.settle(claim, FAILED, 0)

    @rule(claim=claims, delay=st.integers(0, 30))
    def retry(self, claim: Job, delay: int) -> None:
        settled = self.run(self.storage.retry(claim, delay, now=self.now))
        assert settled is self.model.settle(claim, AWAITING_RETRY, delay)

    @rule(claim=claims)
    def hand_back(self, claim: Job) -> None:
        assert self.run(self.storage.hand_back(claim, now=self.now)) is self.model.settle(claim, ENQUEUED, 0)

    @rule(claim=claims, lease=leases)
    def renew(self, claim: Job, lease: int) -> None:
        assert list(self.run(self.storage.renew(claim, lease, now=self.now))) == [self.model.renew(claim, lease)]

    @rule(seconds=st.sampled_from([0, 1, 5, 19, 100]))
    def sweep(self, seconds: int) -> None:
        self.model.now += seconds
        assert self.run(self.storage.sweep(now=self.now)) == self.model.sweep()

    @rule(job=jobs)
    def cancel(self, job: Job) -> None:
        moved = self.run(self.storage.cancel(job.id, now=self.now))
        assert moved is self.model.by_hand(job.id, DELETED, UNFINISHED)

    @rule(job=jobs)
    def requeue(self, job: Job) -> None:
        moved = self.run(self.storage.requeue(job.id, now=self.now))
        assert moved is self.model.by_hand(job.id, ENQUEUED, {FAILED, SCHEDULED, AWAITING_RETRY})

    @rule(job=jobs)
    def delete(self, job: Job) -> None:
        assert self.run(self.storage.delete(job.id)) is self.model.erase(job.id)

    @rule(job=jobs, queue=queues, priority=priorities, state=st.sampled_from(JobState))
    def update(self, job: Job, queue: str, priority: int, state: JobState) -> None:
        known = self.model.jobs.get(job.id)
        if known:
            written = self.run(self.storage.update_if_state(job.replace(queue=queue, priority=priority), state))
            assert written is (known.state is state)
            if written:
                known.queue, known.priority, known.max_retries = queue, priority, job.max_retries

    @rule(queue=queues)
    def pause(self, queue: str) -> None:
        assert self.run(self.storage.pause_queue(queue)) is (queue not in self.model.paused)
        self.model.paused.add(queue)

    @rule(queue=queues)
    def resume(self, queue: str) -> None:
        assert self.run(self.storage.resume_queue(queue)) is (queue in self.model.paused)
        self.model.paused.discard(queue)

    @rule(queue=queues, config=limits)
    def configure(self, queue: str, config: QueueConfig) -> None:
        self.run(self.storage.configure_queue(queue, config))
        self.model.limits[queue] = config

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        self.run(self.compare())

    async def compare(self) -> None:
        listed = await self.storage.list(limit=ALL)
        known = [self.model.jobs[job_id] for job_id in sorted(self.model.jobs, reverse=True)]
        assert [(job.id, job.queue, job.priority, job.state, job.attempt, job.worker_id) for job in listed] == [
            (job.id, job.queue, job.priority, job.state, job.attempt, job.worker) for job in known
        ]
        assert [await self.storage.get(job.id) for job in listed] == listed
        counts = await self.storage.get_queue_counts()
        assert {
            (queue, state): many for queue, of in counts.items() for state, many in of.items() if many
        } == self.model.counts()
        assert ids(await self.storage.get_available_jobs(ALL)) == self.model.waiting()
        for key in self.model.keys:
            holder = await self.storage.get_unique(key, now=self.now)
            known = self.model.jobs.get(self.model.holder(key) or "")
            assert (holder and holder.id) == (known and known.id)


@pytest.mark.timeout(600)  # Hypothesis takes up to 300 s to shorten a history that does not agree
def test_any_history_agrees_with_the_model(new_store: Any) -> None:
    run_state_machine_as_test(
        lambda: Histories(new_store()),
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
