"""What a queue may do is kept in the storage, for all who use it."""

from typing import Any

import pytest

from qml_nb.config import QueueConfig
from qml_nb.errors import InvalidValue, UnknownOption
from qml_nb.storage.storage import Storage
from tests.contract.conftest import Connect

FULL = QueueConfig(concurrency=3, rate=0.1, burst=7, max_waiting=2**31 - 1, when_full="drop_oldest")


async def test_a_queue_may_do_whatever_it_likes_at_first(storage: Storage) -> None:
    assert await storage.get_queue_config("email") == QueueConfig()
    assert await storage.list_queue_configs() == {}


async def test_what_was_set_comes_back_equal_and_by_name(storage: Storage) -> None:
    other = QueueConfig(rate=1e-9)
    assert await storage.configure_queue("ü 😀", FULL) == FULL
    assert await storage.configure_queue("b", rate=1e-9) == other

    assert await storage.get_queue_config("ü 😀") == FULL
    assert list((await storage.list_queue_configs()).items()) == [("b", other), ("ü 😀", FULL)]


async def test_what_is_not_given_is_lifted(storage: Storage) -> None:
    await storage.configure_queue("a", FULL)

    await storage.configure_queue("a", max_waiting=5)

    assert await storage.get_queue_config("a") == QueueConfig(max_waiting=5)


async def test_a_queue_without_any_bound_is_listed_no_longer(storage: Storage) -> None:
    await storage.configure_queue("a", FULL)

    assert await storage.configure_queue("a") == QueueConfig()

    assert await storage.list_queue_configs() == {}


async def test_it_outlives_the_jobs_of_the_queue(storage: Storage) -> None:
    await storage.configure_queue("a", FULL)

    await storage.sweep()

    assert await storage.get_queue_config("a") == FULL


async def test_every_connection_sees_it(storage: Storage, connect: Connect) -> None:
    async with await connect() as other:
        await other.configure_queue("a", FULL)

        assert await storage.get_queue_config("a") == FULL


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rate": 0}, InvalidValue, "expected rate to be a number from 1e-9 to 1e9"),
        ({"config": 5}, InvalidValue, "expected config to be a QueueConfig"),
        ({"config": FULL, "rate": 2}, InvalidValue, "give a config or options, not both"),
        ({"concurency": 2}, UnknownOption, "did you mean 'concurrency'"),
        ({"queue": ""}, InvalidValue, "expected queue to be a name"),
    ],
)
async def test_what_can_not_be_is_refused_and_changes_nothing(
    storage: Storage, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await storage.configure_queue(**{"queue": "a"} | options)

    assert await storage.list_queue_configs() == {}
