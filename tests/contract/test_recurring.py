"""Recurring schedules are kept, replaced and removed by id."""

import pytest
from msgspec.structs import replace

from qml_nb import InvalidValue
from qml_nb.storage.backend import Recurring
from qml_nb.storage.storage import Storage
from tests.clock import NOW, at

NIGHTLY = Recurring("nightly", "0 3 * * *", "clean", next_ts=1893466800.0)
FULL = Recurring(
    "ü 😀",
    "*/5 * * * *",
    "report",
    args_json=b"[9007199254740993]",
    kwargs_json=b'{"a":[]}',
    queue="reports",
    priority=-3,
    max_retries=4,
    timezone="Europe/Berlin",
    next_ts=1893456000.25,
    last_ts=1893455700.0,
    enabled=False,
)


async def test_there_are_none_at_first(storage: Storage) -> None:
    assert await storage.list_recurring() == []


async def test_schedules_come_back_equal_and_by_id(storage: Storage) -> None:
    for schedule in (FULL, NIGHTLY):
        await storage.upsert_recurring(schedule)

    assert await storage.list_recurring() == [NIGHTLY, FULL]


async def test_one_without_a_next_instant_is_due_when_its_expression_says(storage: Storage) -> None:
    await storage.upsert_recurring(replace(NIGHTLY, next_ts=None, timezone="Asia/Kathmandu"), now=NOW)

    [stored] = await storage.list_recurring()
    assert stored.next_ts == at(21 * 3_600 + 900).timestamp()


@pytest.mark.parametrize(
    "change", [{"cron": "whenever"}, {"timezone": "Mars/Olympus"}, {"misfire": "later"}, {"id": ""}]
)
async def test_what_no_server_could_fire_is_refused(storage: Storage, change: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(change))):
        await storage.upsert_recurring(replace(NIGHTLY, **change))

    assert await storage.list_recurring() == []


async def test_one_with_the_same_id_is_replaced(storage: Storage) -> None:
    await storage.upsert_recurring(FULL)
    changed = replace(NIGHTLY, id=FULL.id)

    await storage.upsert_recurring(changed)

    assert await storage.list_recurring() == [changed]


async def test_a_removed_one_is_gone(storage: Storage) -> None:
    for schedule in (NIGHTLY, FULL):
        await storage.upsert_recurring(schedule)

    assert await storage.remove_recurring("nightly") is True
    assert await storage.remove_recurring("nightly") is False

    assert await storage.list_recurring() == [FULL]
