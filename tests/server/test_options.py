"""Every option of `ServerConfig` acts. One test each, or more; see also the tests of claiming, timeouts and leases."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

import pytest

from qml_nb import BackgroundJobServer, InvalidValue, Job, JobState, RetryPolicy, ServerConfig, UnknownOption
from tests.server.waiting import ended, full_house, in_state, run, until


async def test_server_name_is_what_people_read(storage, registry, serve) -> None:
    registry.register("name", lambda: threading.current_thread().name)
    server = await serve(server_name="mailer")
    [job] = await run(storage, Job("name"))
    assert job.worker_id == server.server_id
    assert server.server_id.startswith("mailer#")
    [row] = await storage.list_servers()
    assert row.server_name == "mailer"
    assert job.result == "mailer thread"


async def test_two_servers_of_one_name_have_different_ids(serve) -> None:
    assert (await serve(server_name="mailer")).server_id != (await serve(server_name="mailer")).server_id


@pytest.mark.parametrize("worker_count", [1, 3, 64])
async def test_worker_count_is_how_many_jobs_run_at_a_time(serve, worker_count) -> None:
    await full_house(await serve(worker_count=worker_count), worker_count)


async def test_polling_interval_is_the_net_below_a_push_that_got_lost(storage, registry, serve, monkeypatch) -> None:
    registry.register("note", lambda: "noted")

    async def deaf(_queues, timeout: float) -> bool:
        await asyncio.sleep(timeout)
        return False

    monkeypatch.setattr(storage.backend, "wait", deaf)
    await serve(polling_interval=0.05)
    for _ in range(3):
        [job] = await run(storage, Job("note"))
        assert job.result == "noted"


async def test_polling_interval_is_what_the_server_asks_the_storage_to_wait(storage, registry, serve) -> None:
    asked: list[float] = []
    wait = storage.backend.wait

    async def note(queues, timeout: float) -> bool:
        asked.append(timeout)
        return await wait(queues, timeout)

    storage.backend.wait = note
    await serve(polling_interval=12.5)
    await until(lambda: asked)
    assert asked == [12.5]


async def test_a_push_wakes_an_idle_server_long_before_its_polling_interval(storage, registry, serve) -> None:
    registry.register("note", lambda: "noted")
    server = await serve(polling_interval=60)
    for _ in range(3):
        began = monotonic()
        await run(storage, Job("note"))
        assert monotonic() - began < 10
        await until(lambda: server._parked)


@pytest.mark.parametrize("how", ["schedule", "retry", "resume", "requeue", "reclaim"])
async def test_whatever_makes_a_job_due_wakes_an_idle_server(storage, registry, serve, how) -> None:
    registry.register("note", lambda: "noted")
    job = Job("note", max_retries=1)
    if how == "schedule":
        await storage.schedule(job, delay=0.05)
    else:
        await storage.enqueue(job)
    if how in ("retry", "requeue", "reclaim"):
        claimed = await storage.fetch_and_lock_job("other", lease=0.05 if how == "reclaim" else 60)
        if how == "retry":
            await storage.retry(claimed, 0.05)
        elif how == "requeue":
            await storage.fail(claimed, "broken")
    if how == "resume":
        await storage.pause_queue("default")
    server = await serve(polling_interval=60)
    if how == "resume":
        await until(lambda: server._parked)
        await storage.resume_queue("default")
    if how == "requeue":
        await until(lambda: server._parked)
        await storage.requeue(job.id)
    job = await in_state(storage, job, JobState.SUCCEEDED)
    assert job.result == "noted"


async def test_queues_are_the_only_ones_served(storage, registry, serve) -> None:
    registry.register("note", lambda: "noted")
    jobs = {queue: Job("note", queue=queue) for queue in ("mail", "bills", "default")}
    await storage.enqueue_many(jobs.values())
    server = await serve(queues=["mail", "bills"])
    await server.drained(timeout=20)
    states = {queue: (await storage.get(job.id)).state for queue, job in jobs.items()}
    assert states == {"mail": JobState.SUCCEEDED, "bills": JobState.SUCCEEDED, "default": JobState.ENQUEUED}


async def test_by_default_the_default_queue_is_served(storage, registry) -> None:
    registry.register("note", lambda: "noted")
    other = Job("note", queue="other")
    await storage.enqueue_many([mine := Job("note"), other])
    async with BackgroundJobServer(storage, registry):
        await ended(storage, mine)
    assert (await storage.get(other.id)).state is JobState.ENQUEUED


@pytest.mark.parametrize("queues", [(), [], None])
async def test_no_queues_means_all_of_them_new_ones_too(storage, registry, serve, queues) -> None:
    registry.register("note", lambda: "noted")
    server = await serve(queues=queues, polling_interval=60)
    await until(lambda: server._parked)
    for queue in ("default", "mail", "bills"):
        [job] = await run(storage, Job("note", queue=queue))
        assert job.result == "noted"


async def test_a_paused_queue_is_not_served_until_it_is_resumed(storage, registry, serve) -> None:
    registry.register("note", lambda: "noted")
    await storage.pause_queue("mail")
    server = await serve(queues=["mail", "default"], polling_interval=0.02)
    waiting = Job("note", queue="mail")
    await storage.enqueue(waiting)
    await run(storage, Job("note"))
    assert (await storage.get(waiting.id)).state is JobState.ENQUEUED
    await storage.resume_queue("mail")
    await server.drained(timeout=20)
    assert (await storage.get(waiting.id)).state is JobState.SUCCEEDED


async def test_priority_goes_over_all_queues(storage, registry, serve) -> None:
    order: list[int] = []
    registry.register("note", order.append)
    await storage.enqueue_many([Job("note", [n], queue="ab"[n % 2], priority=n) for n in range(6)])
    server = await serve(queues=["a", "b"], worker_count=1)
    await server.drained(timeout=20)
    assert order == [5, 4, 3, 2, 1, 0]


async def test_job_timeout_is_for_jobs_without_one(storage, registry, serve) -> None:
    registry.register("never", asyncio.Event().wait)
    await serve(job_timeout=0.05)
    [job] = await run(storage, Job("never"))
    assert "its timeout of 0.05 s" in job.error


@pytest.mark.parametrize("lease", [5.0, 500.0])
async def test_lease_is_how_long_a_claim_holds(storage, registry, serve, lease) -> None:
    go = asyncio.Event()
    registry.register("hold", go.wait)
    await serve(lease=lease)
    job = Job("hold")
    await storage.enqueue(job)
    job = await in_state(storage, job, JobState.PROCESSING)
    assert job.lease_ts - job.started_ts == pytest.approx(lease, abs=0.001)
    go.set()


async def test_shutdown_timeout_is_how_long_running_jobs_get(storage, registry, serve) -> None:
    registry.register("never", asyncio.Event().wait)
    server = await serve(shutdown_timeout=0.3)
    await storage.enqueue(Job("never"))
    await until(lambda: server.snapshot().busy)
    began = monotonic()
    await server.stop()
    assert 0.3 <= monotonic() - began < 10


async def test_scheduler_poll_interval_is_how_often_due_jobs_are_looked_for(storage, registry, serve) -> None:
    swept: list[float] = []
    sweep = storage.backend.sweep

    async def note(limit: int, **now):
        swept.append(monotonic())
        return await sweep(limit, **now)

    storage.backend.sweep = note
    await serve(scheduler_poll_interval=3600)
    await serve(scheduler_poll_interval=0.02)
    await until(lambda: len(swept) > 5)
    assert swept[5] - swept[0] >= 0.1


async def test_retry_is_the_policy_of_tasks_without_one(storage, registry, serve) -> None:
    registry.register("fail", lambda: 1 / 0)
    await serve(retry=RetryPolicy.none())
    [job] = await run(storage, Job("fail", max_retries=5))
    assert job.attempt == 1


def test_options_come_by_name_or_as_a_config_but_not_both(storage, registry) -> None:
    assert BackgroundJobServer(storage, registry, worker_count=3).config == ServerConfig(worker_count=3)
    assert BackgroundJobServer(storage, registry, ServerConfig("mailer")).config.server_name == "mailer"
    with pytest.raises(InvalidValue, match="not both"):
        BackgroundJobServer(storage, registry, ServerConfig(), worker_count=3)
    with pytest.raises(UnknownOption, match="did you mean 'worker_count'"):
        BackgroundJobServer(storage, registry, worker_cout=3)
    with pytest.raises(InvalidValue, match="to be a ServerConfig"):
        BackgroundJobServer(storage, registry, "mailer")
