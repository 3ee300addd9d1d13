"""The four plots as plotly has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qml_widgets.chart import Chart
from qml_widgets.history import History
from qml_widgets.screen import NOTHING

if TYPE_CHECKING:
    from tests.widgets.page import Page


def filled(seconds: int) -> History:
    history = History(60.0)
    latency = dict.fromkeys(NOTHING.latency, (0.004, 0.02, 0.03))
    for turn in range(seconds * 10):
        history.add(replace(NOTHING, ts=turn / 10, rate_in=90.0, rate_done=80.0, slots=4, busy=3, latency=latency))
    return history


def curve(chart: Chart, name: str) -> list[float]:
    return [round(float(value), 3) for value in next(trace for trace in chart.data if trace.name == name).y]


def test_each_curve_shows_its_column(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(filled(5).thinned(), "run", 0.0, 1.0)
    assert (curve(chart, "in")[-1], curve(chart, "done")[-1], curve(chart, "p95")[-1]) == (90.0, 80.0, 0.02)
    assert (curve(chart, "busy")[-1], curve(chart, "all")[-1], curve(chart, "waiting")[-1]) == (3.0, 4.0, 0.0)


def test_the_time_axis_grows_and_then_scrolls(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(filled(5).thinned(), "total", 0.0, 1.0)
    assert list(chart.layout.xaxis.range) == [0, 15]
    chart.show(filled(90).thinned(), "total", 0.0, 1.0)
    assert [round(value) for value in chart.layout.xaxis.range] == [30, 90]


def test_axes_end_above_the_data_and_latency_has_ticks_in_words(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(filled(5).thinned(), "total", 0.0, 1.0)
    assert 90 < chart.layout.yaxis.range[1] <= 120
    assert list(chart.layout.yaxis2.range) == [-3, -1]
    assert "10 ms" in chart.layout.yaxis2.ticktext


def test_the_title_names_the_phase(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(filled(2).thinned(), "queue_wait", 0.0, 1.0)
    assert "Queue wait" in chart.layout.annotations[1].text


def test_a_picture_without_samples_is_empty(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(History(60.0).thinned(), "total", 0.0, 0.0)
    assert all(len(trace.x) == 0 for trace in chart.data)


def test_one_picture_is_one_update(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(filled(5).thinned(), "total", 0.0, 1.0)
    before = len(page.updates("_py2js_update"))
    chart.show(filled(6).thinned(), "total", 0.0, 2.0)
    assert len(page.updates("_py2js_update")) == before + 1


def test_numbers_go_to_the_page_as_typed_arrays(page: Page) -> None:
    chart = Chart(60.0)
    chart.show(filled(5).thinned(), "total", 0.0, 1.0)
    _, state = page.updates("_py2js_update")[-1]
    assert {array["dtype"] for array in state["_py2js_update"]["style_data"]["y"]} == {"float32"}


def test_the_front_end_of_plotly_carries_our_changes() -> None:
    assert "const PlotlyFigureView = " in str(Chart._esm)  # else plotly has changed its module: see `_front_end`
    assert "innerHTML" not in str(Chart._esm).partition("const PlotlyFigureView")[2]
