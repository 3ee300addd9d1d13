"""For the tests of applications that use the queue: no imitation of it, but the queue itself, and fast.

Jobs run through a real server on whatever storage the application has, `MemoryStorage()` being the quickest: arguments
are encoded, middleware runs, retries are counted, results are stored. Nothing waits for the clock.

    from qml_nb import Job, MemoryStorage
    from qml_nb.testing import assert_enqueued, assert_not_enqueued, drain, inline, perform
    from shop import place_order, registry  # the application


    async def test_an_order_is_confirmed_by_mail():
        storage = MemoryStorage()
        await place_order(storage, "ann@example.com", [1, 2])
        await assert_enqueued(storage, "send_email", args=["ann@example.com"], queue="email")
        await assert_enqueued(storage, "ask_for_review", scheduled_in=86_400)
        await assert_not_enqueued(storage, "refund")


    async def test_what_was_enqueued_runs():
        storage = MemoryStorage()
        await place_order(storage, "ann@example.com", [1, 2])
        ended = await drain(storage, registry, scheduled=True)  # raises JobFailed if one fails
        assert [job.method for job in ended] == ["send_email", "ask_for_review"]


    async def test_everything_at_once():
        storage = MemoryStorage()
        async with inline(storage, registry):  # each enqueue returns when its job has ended
            await place_order(storage, "ann@example.com", [1, 2])


    async def test_a_single_task():
        assert await perform(registry, Job("total", [[1, 2]])) == 3

Code without `await` has the same in `qml_nb.testing.sync`:

    from qml_nb import Job, MemoryStorage
    from qml_nb.testing.sync import assert_enqueued, inline
    from shop import registry


    def test_without_await():
        storage = MemoryStorage()
        storage.sync.enqueue(Job("send_email", ["ann@example.com"]))
        assert_enqueued(storage, "send_email", times=1)
        with inline(storage, registry):
            storage.sync.enqueue(Job("send_email", ["joe@example.com"]))
"""

from qml_nb.testing.running import Ended, drain, inline, perform
from qml_nb.testing.waiting import assert_enqueued, assert_not_enqueued, enqueued

__all__ = ["Ended", "assert_enqueued", "assert_not_enqueued", "drain", "enqueued", "inline", "perform"]
