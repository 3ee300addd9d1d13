"""Who waits in this process is told, or somebody else is: a wake-up is never lost."""

import asyncio
from threading import Lock

from qml_nb.job import Job
from qml_nb.storage import MemoryStorage
from qml_nb.storage.memory.waiters import Waiters


async def test_a_waiter_woken_just_after_its_time_was_up_says_so() -> None:
    """It took the wake-up from others, so it must not report that none came."""
    waiters = Waiters()
    waiter = waiters.park(None)
    waiter.future.add_done_callback(lambda _: waiters.wake("queue", 1))  # runs before the waiter does

    assert await waiters.sleep(waiter, 0, Lock()) is True


async def test_the_longest_waiting_is_woken_first() -> None:
    waiters = Waiters()
    first, second = waiters.park(None), waiters.park(["queue"])

    waiters.wake("queue", 1)

    assert first.future.done()
    assert not second.future.done()


async def test_no_more_are_woken_than_there_is_work_for() -> None:
    waiters = Waiters()
    parked = [waiters.park(None) for _ in range(5)]

    waiters.wake("queue", 3)

    assert [waiter.future.done() for waiter in parked] == [True, True, True, False, False]


async def test_those_who_would_look_too_late_look_again_and_say_that_nothing_came() -> None:
    waiters = Waiters()
    asked, early, other = waiters.park(["queue"]), waiters.park(["queue"], 5.0), waiters.park(["other"])

    waiters.look_again("queue", 5.0)

    assert [waiter.future.done() for waiter in (asked, early, other)] == [True, False, False]
    assert await waiters.sleep(asked, 60.0, Lock()) is False


def test_a_waiter_whose_loop_closed_hinders_nobody() -> None:
    storage = MemoryStorage()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: None)  # it would tell that the task was destroyed
    task = loop.create_task(storage.wait(timeout=60.0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def push_to_who_waits() -> bool:
        waiting = asyncio.create_task(storage.wait(timeout=60.0))
        await asyncio.sleep(0)
        await storage.enqueue(Job("work"))
        return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(push_to_who_waits()) is True
    assert not task.done()
