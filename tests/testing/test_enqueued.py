"""What waits in a storage, found and asserted; and what an assertion that fails shows."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from qml_nb import InvalidValue, Job
from qml_nb.testing import assert_enqueued, assert_not_enqueued, enqueued


async def test_enqueued_finds_what_waits_or_is_scheduled_the_oldest_first(storage, registry, ran) -> None:
    mail, later, other = Job("send", ["a"], {"copy": True}, queue="mail"), Job("send", ["b"]), Job("note", [1])
    await storage.enqueue_many([mail, other])
    await storage.schedule(later, delay=60)
    assert [job.id for job in await enqueued(storage)] == [mail.id, later.id, other.id]
    assert [job.id for job in await enqueued(storage, "send")] == [mail.id, later.id]
    assert [job.id for job in await enqueued(storage, "send", args=["b"])] == [later.id]
    assert [job.id for job in await enqueued(storage, args=[ANY], kwargs={"copy": True})] == [mail.id]
    assert [job.id for job in await enqueued(storage, queue="mail")] == [mail.id]
    await storage.cancel(mail.id)
    await storage.claim("worker", ["default"], 1, 30.0)
    assert [job.id for job in await enqueued(storage)] == [later.id]


async def test_enqueued_finds_more_than_one_page(storage) -> None:
    await storage.enqueue_many([Job("note", [n]) for n in range(2_050)])
    assert [job.args[0] for job in await enqueued(storage, "note")] == list(range(2_050))


async def test_assert_enqueued_returns_the_jobs_that_it_finds(storage) -> None:
    first, second = Job("send", ["a"], queue="mail"), Job("send", ["b"], queue="mail")
    await storage.enqueue_many([first, second])
    found = await assert_enqueued(storage, "send", queue="mail")
    assert [job.id for job in found] == [first.id, second.id]
    await assert_enqueued(storage, "send", args=["a"], times=1)
    await assert_enqueued(storage, "send", args=("b",), kwargs={}, scheduled_in=0)
    await assert_enqueued(storage, "resize", times=0)


async def test_assert_enqueued_shows_what_is_enqueued(storage) -> None:
    with pytest.raises(AssertionError) as empty:
        await assert_enqueued(storage, "send")
    assert str(empty.value) == "expected send to be enqueued; nothing is"
    await storage.enqueue(Job("resize", ["a.png"]))
    await storage.schedule(Job("send", ["ann"], {"copy": True}, queue="mail"), delay=60)
    with pytest.raises(AssertionError) as other:
        await assert_enqueued(storage, "send", args=["joe"], queue="mail")
    assert str(other.value) == (
        "expected send('joe', **) in queue 'mail' to be enqueued; there are\n"
        "  send('ann', copy=True) in queue 'mail', due in 60 s\n"
        "  resize('a.png') in queue 'default'"
    )
    with pytest.raises(AssertionError, match="expected send to be enqueued 2 times, got 1; there are"):
        await assert_enqueued(storage, "send", times=2)
    with pytest.raises(AssertionError, match=r"expected a job due in 90 s \(± 5 s\) to be enqueued; there are"):
        await assert_enqueued(storage, scheduled_in=90)
    await assert_enqueued(storage, scheduled_in=90, within=40)


async def test_assert_enqueued_shows_no_more_than_can_be_read(storage) -> None:
    await storage.enqueue_many([Job("note", [n]) for n in range(25)])
    with pytest.raises(AssertionError, match="… and 5 more"):
        await assert_enqueued(storage, "send")


async def test_assert_not_enqueued_shows_what_it_finds(storage) -> None:
    await storage.enqueue(Job("send", ["ann"]))
    await assert_not_enqueued(storage, "send", args=["joe"])
    await assert_not_enqueued(storage, "resize")
    with pytest.raises(AssertionError) as found:
        await assert_not_enqueued(storage, "send")
    assert str(found.value) == ("expected send not to be enqueued, got 1; there is\n  send('ann') in queue 'default'")


async def test_arguments_that_are_no_list_are_refused(storage) -> None:
    with pytest.raises(InvalidValue, match="expected args to be a list, got 'ann'"):
        await assert_enqueued(storage, "send", args="ann")
