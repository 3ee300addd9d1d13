"""What servers tell in the storage: small messages that come back equal, and nothing that others send does harm."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import asdict, replace

from qml_nb import Job, MemoryStorage
from qml_nb.server.broadcast import Broadcast, decode, encode, joined
from qml_nb.server.telemetry import MOST_NAMED, OTHER, PHASES, TICK, Snapshot, TaskCount, bucket
from qml_nb.storage.backend import TELEMETRY
from tests.server.waiting import run, until

EMPTY = Snapshot("server#1", 1e9, 4, 2, 1, 10, 7, 2, 1, 0, 0, {phase: {} for phase in PHASES})

steps = st.dictionaries(st.integers(0, bucket(2**62)), st.integers(1, 2**40), max_size=20)
tasks = st.lists(
    st.builds(TaskCount, st.text(max_size=20), st.text(max_size=20), *[st.integers(0, 2**40)] * 4),
    max_size=5,
    unique_by=lambda task: (task.queue, task.method),
).map(tuple)
snapshots = st.builds(
    lambda phases, tasks: replace(EMPTY, phases=dict(zip(PHASES, phases, strict=True)), tasks=tasks),
    st.lists(steps, min_size=len(PHASES), max_size=len(PHASES)),
    tasks,
)


@given(snapshots)
def test_a_snapshot_comes_back_equal(snapshot: Snapshot) -> None:
    assert decode(encode(snapshot)) == snapshot


@given(snapshots, snapshots)
def test_two_that_follow_each_other_add_up(earlier: Snapshot, later: Snapshot) -> None:
    whole = joined(earlier, replace(later, succeeded=100))
    assert whole.succeeded == 100
    for phase in PHASES:
        assert whole.phases[phase] == Counter(earlier.phases[phase]) + Counter(later.phases[phase])
    for field in ("succeeded", "failed", "retried", "ticks"):
        assert sum(getattr(task, field) for task in whole.tasks) == sum(
            getattr(task, field) for task in (*earlier.tasks, *later.tasks)
        )


def test_joined_ones_name_no_more_tasks_than_one() -> None:
    parts = [
        replace(EMPTY, tasks=tuple(TaskCount(f"queue {part}", f"{number}", 1) for number in range(MOST_NAMED)))
        for part in range(3)
    ]
    whole = joined(joined(*parts[:2]), parts[2])
    assert len(whole.tasks) == MOST_NAMED + 1
    assert [task.succeeded for task in whole.tasks if task.queue == OTHER] == [2 * MOST_NAMED]


def test_a_quarter_of_a_second_of_a_busy_server_fits_a_notification_of_postgres() -> None:
    random.seed(5)
    phases = {
        phase: dict(Counter(bucket(int(random.lognormvariate(0, 1) * 0.01 / TICK)) for _ in range(5_000)))
        for phase in PHASES
    }
    tasks = tuple(TaskCount("default", f"send_email_{number}", 500, 3, 7, 123_456) for number in range(10))
    message = encode(replace(EMPTY, phases=phases, tasks=tasks, host="machine", pid=12345, server_name="mailer"))
    assert len(message) * 2 < 7_400


# -- what anybody may send


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"nonsense",
        zlib.compress(b""),
        zlib.compress(b"nonsense"),
        zlib.compress(msgpack.encode({"snapshot": {}, "steps": {}})),
        zlib.compress(b"\x91" * 100_000),
        encode(EMPTY)[:-5],
        zlib.compress(bytes(1 << 24)),
    ],
)
def test_what_is_no_snapshot_is_nothing(message: bytes) -> None:
    assert decode(message) is None


def forged(steps: object = (), **fields: object) -> bytes:
    snapshot = asdict(EMPTY) | {"phases": {}, "tasks": []} | fields
    return zlib.compress(msgpack.encode({"snapshot": snapshot, "steps": dict(steps)}))


def test_the_forger_of_these_tests_can_write() -> None:
    assert decode(forged({"run": ([3], [4])})) == replace(EMPTY, phases=EMPTY.phases | {"run": {3: 4}})


@pytest.mark.parametrize(
    "message",
    [
        forged(slots=-1),
        forged(succeeded=2**60),
        forged(ts=float("nan")),
        forged(ts=float("inf")),
        forged(interval=float("nan")),
        forged(server_id="x" * 10_000),
        forged(server_id=b"\xff"),
        forged(tasks=[{"queue": "q", "method": "m", "ticks": -1}]),
        forged({"run": ([-1], [1])}),
        forged({"run": ([1], [-1])}),
        forged({"run": ([2**53], [1])}),
        forged({"run": ([1] * 100_000, [1] * 100_000)}),
        forged({"run": (["1"], [1])}),
    ],
)
def test_a_forged_one_with_impossible_values_is_nothing(message: bytes) -> None:
    assert decode(message) is None


def test_an_unknown_phase_and_an_unknown_field_of_a_later_version_are_left_out() -> None:
    snapshot = decode(forged({"dreaming": ([1], [1]), "run": ([1], [1])}, mood="good"))
    assert snapshot is not None
    assert snapshot.phases == {phase: {} for phase in PHASES} | {"run": {1: 1}}


# -- servers send


async def heard(storage) -> list[Snapshot]:
    inbox, found = await storage.subscribe(TELEMETRY), []

    def hear(message: bytes | None) -> None:
        if message is not None:
            found.append(decode(message))

    inbox.hear(hear)
    return found


async def test_a_server_publishes_all_that_it_did_and_its_last_word_at_the_stop(storage, registry, serve) -> None:
    @registry.task
    async def work(fail: bool) -> None:
        if fail:
            raise ValueError

    got = await heard(storage)
    server = await serve(worker_count=3, telemetry_interval=0.05, server_name="mailer", queues=["default", "email"])
    await run(storage, *(Job("work", [number % 4 == 0]) for number in range(40)), Job("absent", queue="email"))
    await server.stop()
    await until(lambda: got and got[-1].slots == 0)
    last = got[-1]
    assert (last.succeeded, last.failed, last.claimed, last.busy) == (30, 11, 41, 0)
    assert (last.server_id, last.server_name, last.queues) == (server.server_id, "mailer", ("default", "email"))
    assert last.interval == 0.05
    for phase in PHASES:
        assert sum(many for snapshot in got for many in snapshot.phases[phase].values()) == 41
    whole = got[0]
    for snapshot in got[1:]:
        whole = joined(whole, snapshot)
    assert {(task.queue, task.method): (task.succeeded, task.failed, task.retried) for task in whole.tasks} == {
        ("default", "work"): (30, 10, 0),
        ("email", "absent"): (0, 1, 0),
    }


async def test_run_time_is_counted_by_task(storage, registry, serve) -> None:
    registry.register("nap", asyncio.sleep)
    got = await heard(storage)
    server = await serve(telemetry_interval=60)
    await run(storage, *(Job("nap", [0.05]) for _ in range(3)), Job("nap", [0.2]))
    await server.stop()
    await until(lambda: got)
    [task] = got[-1].tasks
    assert 0.34 < task.seconds < 20


async def test_one_method_in_two_queues_is_counted_in_each(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    got = await heard(storage)
    server = await serve(telemetry_interval=60, queues=[])
    await run(storage, *(Job("note", queue="ab"[number % 2]) for number in range(30)))
    await server.stop()
    await until(lambda: got)
    assert {task.queue: task.succeeded for task in got[-1].tasks} == {"a": 15, "b": 15}


async def test_unknown_methods_beyond_number_are_counted_as_others(storage, registry, serve) -> None:
    got = await heard(storage)
    server = await serve(telemetry_interval=60)
    await run(storage, *(Job(f"absent {number}") for number in range(MOST_NAMED + 50)))
    await server.stop()
    await until(lambda: got)
    tasks = {(task.queue, task.method): task.failed for task in got[-1].tasks}
    assert len(tasks) == MOST_NAMED + 1
    assert tasks[OTHER, OTHER] == 50


async def test_without_an_interval_nothing_is_published(storage, registry, serve) -> None:
    registry.register("note", lambda: None)
    got = await heard(storage)
    server, told = await serve(telemetry_interval=None), []
    server.listeners.append(told.append)
    await run(storage, Job("note"))
    await until(lambda: len(told) > 4)
    await server.stop()
    assert got == []


async def test_what_can_not_be_published_is_at_most_a_debug_line(caplog) -> None:
    storage = MemoryStorage()
    await storage.close()
    broadcast = Broadcast(storage)
    broadcast.add(EMPTY)
    with caplog.at_level("DEBUG", "qml_nb"):
        await broadcast.send()
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    await broadcast.send()
    assert len(caplog.records) == 1
