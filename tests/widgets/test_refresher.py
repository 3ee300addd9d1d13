"""One thread draws, when there is news, and not too often."""

from __future__ import annotations

import threading
from time import monotonic, sleep

from qml_widgets.refresher import MOST, Refresher
from tests.widgets.page import until


def test_a_poke_is_drawn_at_once() -> None:
    drawn: list[float] = []
    refresher = Refresher(lambda: drawn.append(monotonic()))
    began = monotonic()
    refresher.poke()
    until(lambda: drawn, "a picture")
    assert drawn[0] - began < 0.5
    refresher.close()


def test_without_a_poke_there_is_neither_picture_nor_thread() -> None:
    before = threading.active_count()
    Refresher(lambda: None)
    assert threading.active_count() == before


def test_pokes_without_end_are_drawn_ten_times_a_second() -> None:
    drawn: list[float] = []
    refresher = Refresher(lambda: drawn.append(monotonic()))
    end = monotonic() + 2.5
    while monotonic() < end:
        refresher.poke()
        sleep(0.001)
    refresher.close()
    assert len(drawn) > MOST
    assert all(later - earlier >= 0.99 for earlier, later in zip(drawn, drawn[MOST:], strict=False))


def test_the_last_poke_is_drawn_too() -> None:
    seen: list[int] = []
    state = [0]
    refresher = Refresher(lambda: seen.append(state[0]))
    for state[0] in range(1, 40):
        refresher.poke()
    until(lambda: seen[-1] == 39, "the last state")
    refresher.close()


def test_a_picture_that_had_to_wait_shows_what_came_meanwhile() -> None:
    seen: list[int] = []
    state, began = [1], monotonic()
    refresher = Refresher(lambda: seen.append(state[0]))
    refresher._drawn[0] = began - 0.92
    refresher.poke()
    sleep(0.1)
    state[0] = 2
    refresher.poke()
    took = monotonic() - began
    until(lambda: seen, "a picture")
    assert seen == [2] or took > 0.2
    refresher.close()


def test_a_picture_that_had_to_wait_comes_though_nothing_else_does() -> None:
    seen: list[int] = []
    refresher = Refresher(lambda: seen.append(1))
    refresher._drawn[0] = monotonic() - 0.92
    refresher.poke()
    until(lambda: seen, "a picture")
    refresher.close()


def test_nothing_is_drawn_after_close() -> None:
    drawn: list[int] = []
    refresher = Refresher(lambda: drawn.append(1))
    refresher.poke()
    until(lambda: drawn, "a picture")
    refresher.close()
    refresher.poke()
    sleep(0.2)
    assert drawn == [1]
    assert not any(thread.name == "control-room refresher" for thread in threading.enumerate())


def test_a_close_that_comes_as_news_are_taken_is_heard() -> None:
    drawn: list[int] = []
    refresher = Refresher(lambda: drawn.append(1))

    class News(threading.Event):
        def clear(self) -> None:
            refresher.close(0)
            super().clear()

    refresher._news = News()
    refresher.poke()
    until(lambda: not any(thread.name == "control-room refresher" for thread in threading.enumerate()), "its end")
    assert not drawn


def test_close_before_the_first_poke_starts_no_thread() -> None:
    refresher = Refresher(lambda: None)
    refresher.close()
    refresher.poke()
    assert not any(thread.name == "control-room refresher" for thread in threading.enumerate())
