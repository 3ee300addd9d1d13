"""What becomes of a job that somebody watches is told, to all who listen, and of no other."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qml_nb.job import Job, Report
from qml_nb.states import CRASH_ATTEMPTS
from qml_nb.storage.backend import WATCHED
from qml_nb.storage.inbox import Inbox
from qml_nb.storage.storage import Storage
from tests.contract.conftest import Connect
from tests.contract.states import put

BOUND = 10
"""Seconds within which a message surely arrives."""
LAST = b"nothing more was told"


async def told(storage: Storage, inbox: Inbox) -> list[str]:
    """All that was told so far, once each."""
    await storage.publish(WATCHED, LAST)
    heard = []
    while (message := await asyncio.wait_for(anext(inbox), BOUND)) != LAST:
        heard.append(message.decode())
    return list(dict.fromkeys(heard))


async def claimed(storage: Storage, job: Job, ago: float = 0.0) -> Job:
    """The job, which is the next one, claimed so many seconds ago: on the storage's clock, which a watch goes by."""
    now = datetime.now(UTC) - timedelta(seconds=ago)
    running = await storage.fetch_and_lock_job("worker", lease=10, now=now)
    assert running is not None
    assert running.id == job.id
    return running


async def lose_leases(storage: Storage, job: Job) -> None:
    for _ in range(CRASH_ATTEMPTS):
        await claimed(storage, job, ago=60)
        await storage.sweep()


async def complete(storage: Storage, job: Job) -> None:
    await storage.complete(await claimed(storage, job), 42)


async def fail(storage: Storage, job: Job) -> None:
    await storage.fail(await claimed(storage, job), "it broke")


async def report(storage: Storage, job: Job) -> None:
    running = await claimed(storage, job)
    assert await storage.backend.report([Report(job.id, running.claim_id, b"0.5")]) == [True]


async def drop(storage: Storage, job: Job) -> None:
    await storage.configure_queue("default", max_waiting=1, when_full="drop_oldest")
    await put(storage, priority=1)


TELLING: dict[str, Callable[[Storage, Job], Awaitable[Any]]] = {
    "complete": complete,
    "fail": fail,
    "lose leases": lose_leases,
    "cancel": lambda storage, job: storage.cancel(job.id),
    "delete": lambda storage, job: storage.delete(job.id),
    "drop": drop,
    "report": report,
}


@pytest.mark.parametrize("way", TELLING)
async def test_it_is_told_when_a_job_ends_is_removed_or_reports(storage: Storage, way: str) -> None:
    [job] = await put(storage)
    inbox = await storage.subscribe(WATCHED)
    assert await storage.backend.watch([job.id], 30.0) == [job]

    await TELLING[way](storage, job)

    assert await told(storage, inbox) == [job.id]


async def test_it_is_told_when_a_job_is_pruned(connect: Connect) -> None:
    async with await connect(completed_job_ttl=5.0) as storage:
        [job] = await put(storage)
        await storage.complete(await claimed(storage, job), now=datetime.now(UTC) - timedelta(seconds=60))
        inbox = await storage.subscribe(WATCHED)
        await storage.backend.watch([job.id], 30.0)

        assert (await storage.sweep()).pruned == 1

        assert await told(storage, inbox) == [job.id]


async def test_what_does_not_end_a_job_is_not_told(storage: Storage) -> None:
    [job] = await put(storage)
    inbox = await storage.subscribe(WATCHED)
    await storage.backend.watch([job.id], 30.0)

    await storage.hand_back(await claimed(storage, job))
    await storage.renew(await claimed(storage, job, ago=60), 1, now=datetime.now(UTC) - timedelta(seconds=30))
    await storage.sweep()
    await storage.retry(await claimed(storage, job), 0)
    await storage.requeue(job.id)
    await storage.update(job.replace(priority=5))

    assert await told(storage, inbox) == []


async def test_what_is_changed_after_the_end_is_not_told(storage: Storage) -> None:
    [job] = await put(storage)
    await fail(storage, job)
    inbox = await storage.subscribe(WATCHED)
    await storage.backend.watch([job.id], 30.0)

    await storage.update(job.replace(priority=5))
    await storage.requeue(job.id)

    assert await told(storage, inbox) == []


async def test_a_refused_answer_is_not_told(storage: Storage) -> None:
    [job] = await put(storage)
    lost = await claimed(storage, job, ago=60)
    await storage.sweep()
    inbox = await storage.subscribe(WATCHED)
    await storage.backend.watch([job.id], 30.0)

    assert await storage.complete(lost) is False
    assert await storage.backend.report([Report(lost.id, lost.claim_id, b"1")]) == [False]

    assert await told(storage, inbox) == []


async def test_only_what_is_watched_is_told(storage: Storage) -> None:
    jobs = await put(storage, 4)
    inbox = await storage.subscribe(WATCHED)
    await storage.backend.watch([jobs[3].id, jobs[1].id], 30.0)

    for job in await storage.fetch_available_jobs_atomic("worker", 4):
        await storage.complete(job)

    assert await told(storage, inbox) == [jobs[1].id, jobs[3].id]


async def test_of_many_that_end_at_once_each_watched_one_is_told(storage: Storage) -> None:
    jobs = await put(storage, 40)
    inbox = await storage.subscribe(WATCHED)
    await storage.backend.watch([job.id for job in jobs[::2]], 30.0)

    claims = await storage.fetch_available_jobs_atomic("worker", 40)
    await asyncio.gather(*(storage.complete(job) for job in claims))

    assert sorted(await told(storage, inbox)) == [job.id for job in jobs[::2]]


async def test_it_is_told_over_every_connection(storage: Storage, connect: Connect) -> None:
    async with await connect() as other, await connect() as third:
        [job] = await put(storage)
        inboxes = [await each.subscribe(WATCHED) for each in (storage, other)]
        await other.backend.watch([job.id], 30.0)

        await complete(third, job)

        assert [await told(third, inbox) for inbox in inboxes] == [[job.id]] * 2


async def test_watching_answers_as_get_does(storage: Storage) -> None:
    first, second = await put(storage, 2)
    running = await claimed(storage, first)

    answers = await storage.backend.watch([second.id, "no such job", first.id], 30.0)

    assert answers == [second, None, running]


async def test_after_its_time_nothing_is_told(storage: Storage) -> None:
    jobs = await put(storage, 2)
    inbox = await storage.subscribe(WATCHED)
    await storage.backend.watch([job.id for job in jobs], 0.02)
    await storage.backend.watch([jobs[1].id], 30.0)
    await asyncio.sleep(0.05)

    for job in jobs:
        await complete(storage, job)

    assert await told(storage, inbox) == [jobs[1].id]
