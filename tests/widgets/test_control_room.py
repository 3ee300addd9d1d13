"""What the control room does, by its methods: pool, load and monitor behind one switch."""

from __future__ import annotations

import re
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from qml_nb import InvalidValue, Job, MemoryStorage, WorkerRegistry
from qml_nb.load import Mix
from tests.widgets.page import no_threads_left, until

if TYPE_CHECKING:
    from qml_widgets import ControlRoom
    from tests.widgets.conftest import Rooms


def newest(room: ControlRoom) -> Any:
    return room.monitor.samples[-1]


def wait_for_rate(room: ControlRoom, least: float) -> None:
    until(lambda: room.monitor.samples and newest(room).rate_done >= least, f"{least} jobs/s done")


def test_start_runs_load_and_pool(room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    assert room.is_running
    assert room.load.sent > 0
    assert newest(room).slots == 4


def test_stop_ends_load_and_pool_and_the_rates_fall_to_zero(room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    room.stop()
    until(lambda: (newest(room).rate_in, newest(room).rate_done, newest(room).busy) == (0, 0, 0), "rates of zero")
    assert not room.is_running
    assert room.pool.join(5)
    assert room.load.join(5)


def test_start_after_stop_starts_again_even_while_it_is_still_stopping(new_room: Rooms) -> None:
    room = new_room(mix=Mix(noop=0, sleep=1, sleep_seconds=1.0), rate=50)
    room.start()
    until(lambda: room.monitor.samples and newest(room).busy == 4, "busy slots")
    room.stop()
    room.start()
    assert room.is_running
    until(lambda: room.pool.state == "running" and room.load.is_running, "a second run")


def test_pool_and_load_start_and_stop_apart(room: ControlRoom) -> None:
    room.start(pool=False)
    until(lambda: room.monitor.samples and newest(room).depth > 20, "jobs that wait")
    assert room.pool.state == "stopped"
    room.stop(load=False)
    assert room.load.is_running
    room.start(load=False)
    wait_for_rate(room, 100)
    room.stop(pool=False)
    until(lambda: newest(room).rate_in == 0, "no more jobs")
    assert room.pool.is_running


def test_the_rate_can_be_moved_while_the_load_runs(room: ControlRoom) -> None:
    room.rate = 50
    room.start()
    wait_for_rate(room, 30)
    room.rate = 250
    wait_for_rate(room, 200)


def test_resize_changes_the_slots_of_a_running_pool(room: ControlRoom) -> None:
    room.start()
    until(lambda: room.monitor.samples and newest(room).slots == 4, "4 slots")
    room.resize(9)
    until(lambda: newest(room).slots == 9, "9 slots")
    assert room.workers == 9


def test_resize_before_the_start_counts(room: ControlRoom) -> None:
    room.resize(7)
    room.start()
    until(lambda: room.monitor.samples and newest(room).slots == 7, "7 slots")


@pytest.mark.parametrize("running", [False, True])
def test_burst_sends_its_jobs_with_and_without_the_load(room: ControlRoom, running: bool) -> None:
    room.rate = 0
    if running:
        room.start(pool=False)
    room.burst(123)
    until(lambda: room.monitor.samples and newest(room).depth == 123, "123 jobs that wait")


def test_every_call_returns_at_once(new_room: Rooms) -> None:
    room = new_room(mix=Mix(noop=0, sleep=1, sleep_seconds=3.0), rate=100)
    room.start()
    until(lambda: room.monitor.samples and newest(room).busy == 4, "busy slots")
    began = perf_counter()
    room.resize(2)
    room.burst(10)
    room.stop()
    room.start()
    room.stop()
    assert perf_counter() - began < 1.0  # the jobs take three seconds


def test_failing_is_a_share_of_the_jobs(room: ControlRoom) -> None:
    room.failing = 0.5
    assert (room.mix.failing, room.mix.sleep) == (0.5, 1)
    room.start()
    until(lambda: room.monitor.samples and newest(room).rate_failed > 50, "failures")


@pytest.mark.parametrize(
    ("knob", "value"),
    [("rate", -1), ("rate", "fast"), ("arrivals", "never"), ("failing", 2), ("mix", None), ("phase", "sleep")],
)
def test_a_wrong_setting_is_refused_and_changes_nothing(room: ControlRoom, knob: str, value: Any) -> None:
    before = getattr(room, knob)
    with pytest.raises(InvalidValue):
        setattr(room, knob, value)
    assert getattr(room, knob) == before


def test_a_storage_and_a_registry_of_ones_own(new_room: Rooms) -> None:
    storage, registry, seen = MemoryStorage(), WorkerRegistry(), []
    registry.register("note", lambda text: seen.append(text))
    room = new_room(storage, registry, rate=0)
    room.start(load=False)
    storage.sync.enqueue(Job("note", ["hello"]))
    until(lambda: seen == ["hello"], "the job to run")


def test_options_go_to_the_server(new_room: Rooms) -> None:
    assert new_room(fetch_batch_size=3).pool.config.fetch_batch_size == 3
    with pytest.raises(TypeError, match="did you mean 'fetch_batch_size'"):
        new_room(fetch_batch_sise=3)


def test_close_stops_everything_and_closes_every_widget(room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    widgets = [room, *room.children, *room.children[0].children]
    room.close()
    room.close()
    until(lambda: not room.monitor.is_running, "the monitor to stop")
    assert room.pool.join(5)
    assert room.load.join(5)
    assert [widget.comm for widget in widgets] == [None] * len(widgets)
    no_threads_left()
    with pytest.raises(InvalidValue, match="make a new ControlRoom"):
        room.start()


def test_as_a_context_manager_it_closes_itself(new_room: Rooms) -> None:
    with new_room() as room:
        room.start()
    assert not room.is_running
    assert room.comm is None


def test_all_threads_are_daemons(room: ControlRoom) -> None:
    room.start()
    wait_for_rate(room, 100)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith(("control-room", "qml-nb"))]
    assert len(ours) >= 4
    assert all(thread.daemon for thread in ours)


def test_the_text_form_says_how_it_is_set_and_is_the_same_every_time(new_room: Rooms) -> None:
    room = new_room(rate=120, workers=3)
    assert repr(room) == "ControlRoom(3 slots, 120 jobs/s, constant, sleep 10 ms, stopped)"
    assert room._repr_mimebundle_()["text/plain"] == repr(room)
    assert "0x" not in "".join(map(repr, [room, *room.children[0].children]))
    room.mix = Mix(noop=1, cpu=2)
    room.start()
    assert re.search(r"custom, running\)$", repr(room))
    room.close()
    assert repr(room).endswith("closed)")
