"""A closed storage refuses every call, and lets everyone go who waits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qml_nb.errors import StorageClosed, StorageUnavailable
from qml_nb.job import Job, Outcome, Report
from qml_nb.states import JobState
from qml_nb.storage.backend import Recurring, ServerInfo
from qml_nb.storage.storage import Storage
from tests.contract.states import claim, put

JOB = Job("work")
CALLS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "enqueue": lambda s: s.enqueue(Job("work")),
    "enqueue_many": lambda s: s.enqueue_many([Job("work")]),
    "schedule": lambda s: s.schedule(Job("work"), delay=1),
    "fetch_and_lock_job": lambda s: s.fetch_and_lock_job("worker"),
    "fetch_available_jobs_atomic": lambda s: s.fetch_available_jobs_atomic("worker"),
    "claim": lambda s: s.claim("worker", None, 1, 30.0),
    "settle": lambda s: s.settle([Outcome("id", 1, JobState.SUCCEEDED)]),
    "renew": lambda s: s.renew([JOB]),
    "report": lambda s: s.report([Report("id", 1, b"1")]),
    "sweep": lambda s: s.sweep(),
    "get": lambda s: s.get("id"),
    "list": lambda s: s.list(),
    "get_job_counts": lambda s: s.get_job_counts(),
    "get_queue_counts": lambda s: s.get_queue_counts(),
    "get_available_jobs": lambda s: s.get_available_jobs(),
    "update": lambda s: s.update(JOB),
    "update_if_state": lambda s: s.update_if_state(JOB, "enqueued"),
    "delete": lambda s: s.delete("id"),
    "cancel": lambda s: s.cancel("id"),
    "requeue": lambda s: s.requeue("id"),
    "requeue_all": lambda s: s.requeue_all(),
    "result": lambda s: s.result("id"),
    "wait": lambda s: s.wait(timeout=0),
    "drained": lambda s: s.drained(timeout=0),
    "migrate": lambda s: s.migrate(),
    "try_acquire_job_lock": lambda s: s.try_acquire_job_lock("id", "worker"),
    "release_job_lock": lambda s: s.release_job_lock("id", "worker"),
    "try_acquire_lock": lambda s: s.try_acquire_lock("name", "owner"),
    "release_lock": lambda s: s.release_lock("name", "owner"),
    "upsert_recurring": lambda s: s.upsert_recurring(Recurring("id", "* * * * *", "work")),
    "schedule_recurring": lambda s: s.schedule_recurring("id", "* * * * *", Job("work")),
    "pause_recurring": lambda s: s.pause_recurring("id"),
    "resume_recurring": lambda s: s.resume_recurring("id"),
    "remove_recurring": lambda s: s.remove_recurring("id"),
    "list_recurring": lambda s: s.list_recurring(),
    "register_server": lambda s: s.register_server(ServerInfo("id", "name", 1)),
    "heartbeat": lambda s: s.heartbeat("id"),
    "deregister": lambda s: s.deregister("id"),
    "list_servers": lambda s: s.list_servers(),
    "pause_queue": lambda s: s.pause_queue("queue"),
    "resume_queue": lambda s: s.resume_queue("queue"),
    "list_paused_queues": lambda s: s.list_paused_queues(),
    "configure_queue": lambda s: s.configure_queue("queue", concurrency=1),
    "get_queue_config": lambda s: s.get_queue_config("queue"),
    "list_queue_configs": lambda s: s.list_queue_configs(),
    "get_unique": lambda s: s.get_unique("key"),
    "publish": lambda s: s.publish("channel", b""),
}
SETTLING = {"complete", "fail", "retry", "hand_back"}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_after_closing_is_refused(storage: Storage, name: str) -> None:
    await storage.close()

    with pytest.raises(StorageClosed, match="the storage is closed; open a new one"):
        await CALLS[name](storage)


@pytest.mark.parametrize("verb", sorted(SETTLING))
async def test_a_job_can_not_be_settled_after_closing(storage: Storage, verb: str) -> None:
    await put(storage)
    claimed = await claim(storage)
    await storage.close()

    with pytest.raises(StorageClosed):
        await getattr(storage, verb)(claimed, *(["it broke"] if verb == "fail" else []))


async def test_no_method_of_the_face_was_forgotten_here(storage: Storage) -> None:
    assert CALLS.keys() | SETTLING | {"close"} == set(dir(storage.sync))


async def test_subscribing_after_closing_is_refused(storage: Storage) -> None:
    await storage.close()

    with pytest.raises(StorageClosed):
        await storage.subscribe("news")


async def test_following_a_job_after_closing_is_refused(storage: Storage) -> None:
    await storage.close()

    with pytest.raises(StorageClosed):
        await anext(storage.follow("id"))


async def test_who_waits_for_a_result_is_let_go(storage: Storage) -> None:
    [job] = await put(storage)
    waiting = asyncio.create_task(storage.result(job.id))
    await asyncio.sleep(0.02)

    await storage.close()

    with pytest.raises(StorageClosed):
        await asyncio.wait_for(waiting, 3)


async def test_who_waits_for_room_in_a_queue_is_let_go(storage: Storage) -> None:
    await storage.configure_queue("default", max_waiting=1, when_full="block")
    await put(storage)
    calls = [storage.enqueue(Job("work")), storage.enqueue_many([Job("work")])]
    waiting = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0.02)

    await storage.close()

    # One whose call was under way can't know whether it was served.
    for answer in await asyncio.wait_for(waiting, 3):
        assert isinstance(answer, (StorageClosed, StorageUnavailable))


async def test_closing_twice_does_nothing(storage: Storage) -> None:
    await storage.close()
    await storage.close()

    assert storage.closed


async def test_leaving_the_context_closes(connect: Any) -> None:
    async with await connect() as storage:
        assert not storage.closed
        await storage.enqueue(Job("work"))

    assert storage.closed
    with pytest.raises(StorageClosed):
        async with storage:
            pass


async def test_an_error_in_the_context_comes_out_and_closes(connect: Any) -> None:
    storage = await connect()

    with pytest.raises(LookupError, match="mine"):
        async with storage:
            raise LookupError("mine")

    assert storage.closed


async def test_who_waits_for_work_is_let_go(storage: Storage) -> None:
    waiting = asyncio.create_task(storage.wait(timeout=60))
    await asyncio.sleep(0.02)

    await storage.close()

    await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 10)


async def test_a_reader_of_messages_comes_to_the_end(storage: Storage) -> None:
    messages = await storage.subscribe("news")
    await storage.publish("news", b"last")

    async def read() -> list[bytes]:
        return [message async for message in messages]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    await storage.close()

    assert await asyncio.wait_for(reading, 10) == [b"last"]


async def test_it_shows_that_it_is_closed(storage: Storage) -> None:
    name = type(storage).__name__
    assert repr(storage) == f"<{name}>"
    assert repr(storage.sync) == f"<{name}>.sync"

    await storage.close()

    assert repr(storage) == f"<{name} closed>"
