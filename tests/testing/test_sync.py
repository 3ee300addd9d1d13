"""The same helpers for code without `await`."""

from __future__ import annotations

import pytest

from qml_nb import Job, JobFailed
from qml_nb.testing import sync


def test_without_await_it_is_the_same(sync_storage, registry, ran) -> None:
    storage = sync_storage
    storage.sync.enqueue(Job("note", [1]))
    assert [job.args for job in sync.assert_enqueued(storage, "note", times=1)] == [[1]]
    sync.assert_not_enqueued(storage, "send")
    assert [job.result for job in sync.drain(storage, registry)] == [1]
    assert sync.enqueued(storage) == []
    storage.sync.enqueue(Job("note", [2]))
    with sync.inline(storage, registry) as ended:
        storage.sync.enqueue(Job("note", [3]))
        assert 3 in ran
        with pytest.raises(JobFailed, match="LookupError: x"):
            storage.sync.enqueue_many([Job("fail", ["x"])])
        assert len(ended) == 2
    storage.sync.enqueue(Job("note", [4]))
    assert 4 not in ran


def test_without_await_an_error_in_the_block_is_passed_on(sync_storage, registry, ran) -> None:
    with pytest.raises(KeyError), sync.inline(sync_storage, registry):
        raise KeyError
    sync_storage.sync.enqueue(Job("note", [1]))
    assert ran == []


def test_a_plain_task_enqueues_inline_too(sync_storage, registry, ran) -> None:
    @registry.task
    def parent() -> None:
        sync_storage.sync.enqueue(Job("note", ["child"]))

    with sync.inline(sync_storage, registry):
        sync_storage.sync.enqueue(Job("parent"))
        assert ran == ["child"]


def test_a_single_task_is_performed(registry, ran) -> None:
    assert sync.perform(registry, Job("note", [3])) == 3


def test_every_helper_is_there() -> None:
    from qml_nb import testing

    assert set(testing.__all__) - set(sync.__all__) == {"Ended"}
