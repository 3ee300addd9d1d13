"""What goes from the control room to a page, and back."""

from __future__ import annotations

from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any

import pytest

from qml_nb import MemoryStorage
from qml_nb.errors import StorageError
from tests.widgets.page import Page, until

if TYPE_CHECKING:
    from qml_widgets import ControlRoom
    from tests.widgets.conftest import Rooms

PICTURE = "_py2js_update"
"""The trait by which plotly's figure tells the page of a change."""


def say(room: ControlRoom, command: Any) -> None:
    """Send what a page would send to the panel."""
    room._panel._handle_msg({"content": {"data": {"method": "custom", "content": command}}, "buffers": []})


def show(room: ControlRoom, view: str = "a", *, visible: bool | None = True) -> None:
    """Say that a view of the room is in a page, visible or not; None: it is gone again."""
    say(room, {"do": "seen", "value": {"view": view, "visible": visible}})


def drawn(page: Page) -> int:
    return len(page.updates(PICTURE))


def troubles(room: ControlRoom) -> str:
    return "\n".join(room._panel.facts["troubles"])


def test_the_pictures_are_at_most_ten_in_any_second(room: ControlRoom, page: Page) -> None:
    show(room)
    room.start()
    for turn in range(150):  # knobs are turned far oftener than ten times a second
        room.rate = 100 + turn
        room.phase = ("run", "total")[turn % 2]
        sleep(0.02)
    for traits in ((PICTURE,), ("facts",)):
        instants = [at for at, _ in page.updates(*traits)]
        assert len(instants) > 15
        sides = 2 if traits == ("facts",) else 1  # panel and readout have one each
        assert len(instants) <= sides * 10 * (instants[-1] - instants[0] + 1)
        for first in instants:  # on a busy machine one may come late, and the next in time
            assert sum(first <= at < first + 0.98 for at in instants) <= sides * 11


def test_every_sample_that_shows_something_new_is_drawn(room: ControlRoom, page: Page) -> None:
    show(room)
    room.start()
    until(lambda: drawn(page) >= 20, "20 pictures")
    assert drawn(page) >= 0.8 * len(room.monitor.samples)


def test_a_picture_tells_how_new_it_is(room: ControlRoom, page: Page) -> None:
    show(room)
    room.start()
    until(lambda: drawn(page) >= 5, "5 pictures")
    _, state = page.updates(PICTURE)[-1]
    instants = {sample.changed_ts for sample in room.monitor.samples}
    assert state[PICTURE]["layout_data"]["meta"]["changed_ts"] in instants


def test_nothing_is_sent_after_close(room: ControlRoom, page: Page) -> None:
    show(room)
    room.start()
    until(lambda: drawn(page) >= 5, "5 pictures")
    room.close()
    sent = len(page.messages)
    sleep(0.5)
    assert len(page.messages) == sent


def test_nothing_is_drawn_while_no_view_is_visible(room: ControlRoom, page: Page) -> None:
    show(room, "a", visible=False)
    show(room, "b", visible=False)
    room.start()
    until(lambda: len(room.monitor.samples) > 10, "samples")
    assert drawn(page) == 0
    show(room, "b")
    until(lambda: drawn(page) >= 3, "pictures")


def test_a_view_that_comes_into_sight_gets_a_picture_although_nothing_goes_on(room: ControlRoom, page: Page) -> None:
    show(room)
    until(lambda: drawn(page) == 1, "a picture")
    show(room, visible=False)
    show(room)
    until(lambda: drawn(page) == 2, "a second one")
    _, state = page.updates(PICTURE)[-1]
    assert len(state[PICTURE]["style_data"]["y"]) == len(room._chart.data)
    assert "yaxis2.range" in state[PICTURE]["layout_data"]


def test_views_that_are_gone_do_not_count(room: ControlRoom, page: Page) -> None:
    show(room, "a", visible=False)
    show(room, "b")
    show(room, "b", visible=None)
    before = drawn(page)
    room.start()
    until(lambda: len(room.monitor.samples) > 10, "samples")
    assert drawn(page) <= before + 1  # the one for b may still have been in the making
    show(room, "a", visible=None)
    until(lambda: len(page.updates("_widget_data")) >= 3, "kept pictures")


def test_the_last_picture_of_a_run_is_drawn_and_kept_although_nobody_watches(room: ControlRoom, page: Page) -> None:
    show(room, visible=False)
    room.start()
    until(lambda: room.monitor.samples and room.monitor.samples[-1].rate_done > 50, "jobs")
    room.stop()
    until(lambda: drawn(page) == 1, "the last picture")
    until(lambda: page.updates("_widget_data"), "the kept picture")
    sleep(0.3)
    assert drawn(page) == 1
    done = next(trace for trace in room._chart._widget_data if trace["uid"] == "done")
    assert max(done["y"]) > 50
    assert done["y"][-1] == 0


def test_without_any_page_each_picture_is_kept_in_the_widgets_state(room: ControlRoom, page: Page) -> None:
    room.start()
    until(lambda: len(page.updates("_widget_data")) >= 5, "kept pictures")
    assert drawn(page) == 0


def test_the_picture_stands_still_while_nothing_goes_on(room: ControlRoom, page: Page) -> None:
    show(room)
    room.start(load=False)
    until(lambda: room._screen.rests, "rest")
    before = -1

    def stands() -> bool:  # at once on an idle machine; a busy one may still have a picture under way
        nonlocal before
        before = drawn(page)
        sleep(0.5)
        return drawn(page) == before

    until(stands, "a picture that stands still")
    room.burst(1)
    until(lambda: drawn(page) > before, "a new picture")


def test_a_page_that_comes_late_gets_the_picture_of_now(room: ControlRoom) -> None:
    room.start()
    until(lambda: len(room._chart.data[0].x) > 3, "points")
    state = room._chart.get_state()
    assert len(state["_widget_data"][0]["x"]["shape"]) == 1
    assert state["_widget_data"][0]["x"]["shape"][0] > 3


def test_the_panel_shows_how_the_knobs_stand(room: ControlRoom) -> None:
    room.rate, room.arrivals, room.failing = 77, "poisson", 0.25
    room.resize(6)
    until(lambda: room._panel.facts["failing"] == 0.25 and room._panel.facts["workers"] == 6, "the panel")
    facts = room._panel.facts
    assert (facts["rate"], facts["arrivals"], facts["tasks"]) == (77, "poisson", "sleep 10 ms")


def test_the_readout_says_in_words_what_the_curves_show(room: ControlRoom) -> None:
    room.start()
    until(lambda: "p95" in room._readout.facts["summary"], "a sentence")
    facts = room._readout.facts
    assert "jobs/s in" in facts["summary"]
    assert [row[1] for row in facts["latency"]] == ["queue wait", "slot wait", "run", "settle", "total"]
    assert dict(facts["rates"])["busy slots"].endswith("of 4")
    assert int(dict(facts["counts"])["succeeded"]) > 0


COMMANDS: list[tuple[dict[str, Any], str, Any]] = [
    ({"do": "rate", "value": 40}, "rate", 40),
    ({"do": "resize", "value": 11}, "workers", 11),
    ({"do": "arrivals", "value": "poisson"}, "arrivals", "poisson"),
    ({"do": "failing", "value": 0.1}, "failing", 0.1),
    ({"do": "phase", "value": "run"}, "phase", "run"),
    ({"do": "start"}, "is_running", True),
    ({"do": "load", "value": True}, "is_running", True),
    ({"do": "pool", "value": True}, "is_running", True),
]


@pytest.mark.parametrize(("command", "name", "value"), COMMANDS, ids=[command["do"] for command, _, _ in COMMANDS])
def test_the_page_can_turn_every_knob(room: ControlRoom, command: dict[str, Any], name: str, value: Any) -> None:
    say(room, command)
    assert getattr(room, name) == value
    assert not room._notice


def test_the_page_can_choose_tasks_send_bursts_and_stop(room: ControlRoom) -> None:
    room.failing = 0.5
    say(room, {"do": "tasks", "value": "no-op"})
    assert (room.mix.noop, room.mix.sleep, room.mix.failing) == (1, 0, 0.5)
    say(room, {"do": "burst", "value": 17})
    until(lambda: room.monitor.samples and room.monitor.samples[-1].depth == 17, "the burst")
    say(room, {"do": "start"})
    say(room, {"do": "load", "value": False})
    assert room.pool.is_running
    say(room, {"do": "stop"})
    assert not room.is_running


HOSTILE = "<img src=x onerror=alert(1)>"
NONSENSE: list[Any] = [
    None,
    [],
    "start",
    {},
    {"do": HOSTILE},
    {"do": ["start"]},
    {"do": "close"},
    {"do": "__init__", "value": {}},
    {"do": "rate", "value": float("nan")},
    {"do": "rate", "value": -5},
    {"do": "rate", "value": {"a": 1}},
    {"do": "resize", "value": 0},
    {"do": "resize", "value": 10**30},
    {"do": "resize", "value": 4.5},
    {"do": "resize"},
    {"do": "burst", "value": 10**12},
    {"do": "start", "value": 1},
    {"do": "tasks", "value": HOSTILE},
    {"do": "tasks", "value": ["no-op"]},
    {"do": "phase", "value": []},
    {"do": "seen", "value": None},
    {"do": "seen", "value": {"view": {}, "visible": "?"}},
]


@pytest.mark.parametrize("command", NONSENSE, ids=repr)
def test_nonsense_from_a_page_changes_nothing(room: ControlRoom, command: Any) -> None:
    before = repr(room)
    say(room, command)
    assert repr(room) == before


def test_what_a_page_did_wrong_is_shown_as_text_until_it_does_better(room: ControlRoom) -> None:
    say(room, {"do": HOSTILE})
    until(lambda: HOSTILE in troubles(room), "the notice")
    say(room, {"do": "rate", "value": 10})
    until(lambda: not troubles(room), "no notice")


class Broken(MemoryStorage):
    """Takes no jobs, and no servers."""

    async def enqueue_many(self, jobs: Any) -> int:
        raise StorageError(f"no jobs today {HOSTILE}")

    async def register_server(self, *_: Any, **__: Any) -> None:
        raise StorageError("no servers today")


def test_what_ends_the_pool_the_load_or_a_burst_is_shown(new_room: Rooms) -> None:
    room = new_room(Broken())
    room.start()
    room.burst(5)
    for words in (f"load: StorageError: no jobs today {HOSTILE}", "pool: StorageError: no servers", "burst: Storage"):
        until(lambda words=words: words in troubles(room), words)  # type: ignore[misc]
    until(lambda: room._panel.facts["pool"] == "failed", "the state")
    until(lambda: not room.is_running, "the end")


def test_a_full_storage_is_shown(new_room: Rooms) -> None:
    room = new_room(MemoryStorage(max_jobs=50), rate=500)
    room.start(pool=False)
    until(lambda: "the storage is full" in troubles(room), "the trouble")


def test_a_picture_that_fails_is_not_the_last(room: ControlRoom, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    paint, fail = room._screen._paint, iter([True, True])

    def sometimes(*args: Any, **options: Any) -> None:
        if next(fail, False):
            raise RuntimeError("a picture that can't be drawn")
        paint(*args, **options)

    monkeypatch.setattr(room._screen, "_paint", sometimes)
    show(room)
    room.start()
    until(lambda: drawn(page) >= 3, "pictures")


def turn_every_knob(room: ControlRoom, number: int, errors: list[BaseException]) -> None:
    try:
        for step in range(60):
            say(room, {"do": "rate", "value": 10 * number + step})
            say(room, {"do": "resize", "value": 1 + step % 20})
            say(room, {"do": "phase", "value": ("run", "total", "settle")[step % 3]})
            say(room, {"do": ("start", "stop", "pool", "load")[(step + number) % 4], "value": None})
            say(room, {"do": "burst", "value": 3})
            room.failing = step / 100
            show(room, str(number), visible=step % 2 == 0)
    except BaseException as error:
        errors.append(error)


def test_many_threads_may_turn_the_knobs(room: ControlRoom, page: Page) -> None:
    errors: list[BaseException] = []
    threads = [Thread(target=turn_every_knob, args=(room, number, errors)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    show(room)
    room.rate = 123
    room.start()
    until(lambda: (room._panel.facts["rate"], room._panel.facts["pool"]) == (123, "running"), "the panel")
    before = drawn(page)
    until(lambda: drawn(page) > before, "pictures")
