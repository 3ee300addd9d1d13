"""Every method of the face, called once at least, so that every kind of key is there."""

import asyncio
import traceback

import pytest

from qml_nb.errors import StorageUnavailable
from qml_nb.job import Job, Report
from qml_nb.storage.backend import Recurring, ServerInfo
from qml_nb.storage.storage import Storage
from tests.contract.states import claim, one_in_each, put

SCHEDULE = Recurring("nightly", "0 3 * * *", "report")
FIRED = Recurring("hourly", "0 * * * *", "report", next_ts=0.0)
SERVER = ServerInfo("server-1", "server", 1)


async def exercise(storage: Storage) -> None:
    """Call every method, and leave a record of every kind behind: jobs in each state, locks, waiters and so on."""
    await move_jobs(storage)
    await keep_records(storage)
    await bound_and_watch(storage)
    await look_at_all(storage)
    waiting = asyncio.create_task(storage.wait(["nobody's"], 30))
    listening = await storage.subscribe("telemetry")
    await storage.publish("telemetry", b"message")
    assert await anext(listening) == b"message"
    await asyncio.sleep(0.05)  # the waiter parks
    await put(storage, queue="nobody's")
    assert await waiting


async def move_jobs(storage: Storage) -> None:
    jobs = list((await one_in_each(storage)).values())
    await storage.schedule(Job("work"), delay=60)
    first, *_, last = await put(storage, 9, queue="others")
    claimed = await storage.fetch_available_jobs_atomic("worker", 5, ["others"])
    await storage.renew(claimed)
    await storage.hand_back(claimed[0])
    await storage.retry(claimed[1], 60, "later")
    await storage.fail(claimed[2], "it broke")
    await storage.complete(claimed[3], {"answer": 42})
    await storage.cancel(last.id)
    await storage.requeue(claimed[2].id)
    await storage.update(jobs[0].replace(priority=3, queue="moved"))
    await storage.update_if_state(first.replace(metadata={"a": "b"}), "enqueued")
    await storage.delete(first.id)
    await storage.sweep()


async def keep_records(storage: Storage) -> None:
    [job] = await put(storage, queue="locked")
    await storage.try_acquire_job_lock(job.id, "owner", 60)
    await storage.try_acquire_lock("lock", "owner", 60)
    await storage.upsert_recurring(SCHEDULE)
    await storage.register_server(SERVER)
    await storage.heartbeat(SERVER.server_id)
    await storage.pause_queue("paused")
    await storage.migrate()


async def bound_and_watch(storage: Storage) -> None:
    await storage.configure_queue("bounded", concurrency=2, rate=1000, burst=2, max_waiting=2, when_full="drop_oldest")
    unique = [Job("work", queue="bounded", unique_key=f"key {number}", unique_for=60) for number in range(3)]
    await storage.enqueue_many(unique)
    waiting = asyncio.create_task(storage.result(unique[1].id))
    following = storage.follow(unique[2].id)
    await anext(following)
    first, second = await storage.fetch_available_jobs_atomic("worker", 2, ["bounded"], in_turn=True)
    await storage.backend.report([Report(second.id, second.claim_id, b"0.5")])
    assert (await anext(following)).progress == 0.5
    await following.aclose()
    await storage.complete(first, 42)
    assert await waiting == 42
    await storage.fail(second, "it broke")
    await storage.requeue_all(queue="bounded")
    await storage.backend.swap_recurring(None, FIRED, [Job("work", queue="bounded")])
    await storage.backend.due_recurring(1)


async def look_at_all(storage: Storage) -> None:
    [job] = await storage.list(limit=1)
    await storage.get(job.id)
    await storage.get_available_jobs()
    await storage.get_queue_counts()
    await storage.list_recurring()
    await storage.list_servers()
    await storage.list_paused_queues()
    await storage.get_unique("key 0")
    await storage.get_queue_config("bounded")
    await storage.list_queue_configs()


async def traces(storage: Storage) -> tuple[object, ...]:
    """What one sees of a storage, all of it empty, None or 0 if it was never used."""
    kept = (await storage.list(), await storage.get_queue_counts(), await storage.get_available_jobs())
    records = (await storage.list_recurring(), await storage.list_servers(), await storage.list_paused_queues())
    bounds = (await storage.list_queue_configs(), await storage.get_unique("key 0"))
    return (*kept, *records, *bounds)


async def work_once(storage: Storage) -> None:
    """Take a job through the queue: what a storage must be able to do to count as reached."""
    [job] = await put(storage)
    assert (await claim(storage)).id == job.id


async def said_by(storage: Storage) -> str:
    """All that is said, with tracebacks, where a job can not be taken through the queue."""
    with pytest.raises(StorageUnavailable) as refusal:
        await work_once(storage)
    return "".join(traceback.format_exception(refusal.value))
