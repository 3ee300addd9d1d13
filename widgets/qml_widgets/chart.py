"""`Chart`: throughput, latency, queue depth and busy slots over time, as one plotly `FigureWidget`."""

from __future__ import annotations

import re
from copy import deepcopy
from math import ceil, floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from plotly.basewidget import BaseFigureWidget
from plotly.graph_objects import FigureWidget

from qml_widgets.history import COLUMNS, percentile_columns
from qml_widgets.words import LATENCY_NAMES, tick

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHORTEST_AXIS: Final = 15.0

# (uid, place of the plot, dash, colour, name). The uid becomes a CSS class and a CSS variable, which give the curve its
# colour in light and in dark; the colours here are for pages without the stylesheet. They are Okabe and Ito's, which
# the colour-blind tell apart, made dark enough to read; the dashes do without any colour.
_CURVES: Final = (
    ("in", 1, "solid", "#0072b2", "in"),
    ("done", 1, "dash", "#007a5a", "done"),
    ("failed", 1, "dot", "#c44f00", "failed"),
    ("p50", 2, "solid", "#0072b2", "p50"),
    ("p95", 2, "dash", "#a2437c", "p95"),
    ("p99", 2, "dot", "#c44f00", "p99"),
    ("depth", 3, "solid", "#946200", "waiting"),
    ("busy", 4, "solid", "#007a5a", "busy"),
    ("slots", 4, "dash", "#6b6b6b", "all"),
)
_FILLED: Final = {"depth": "rgba(230,159,0,0.18)", "busy": "rgba(0,158,115,0.18)"}
_PLAIN: Final = {"in": "rate_in", "done": "rate_done", "failed": "rate_failed"} | {
    name: name for name in ("depth", "busy", "slots")
}
_STROKES: Final = {"solid": "──", "dash": "- -", "dot": "···"}


def _front_end() -> str:
    """Return plotly's own module with `static/chart.js` behind it, or as it is where that would not fit."""
    bundle = Path(str(BaseFigureWidget._esm._path)).read_text("utf-8")
    exports = bundle[bundle.rfind("export{") :]  # near the end of 5 MB
    view = re.search(r"([\w$]+) as FigureView\b", exports)
    if view is None:
        return bundle
    patch = (Path(__file__).parent / "static" / "chart.js").read_text("utf-8")
    return f"{bundle}\nconst PlotlyFigureView = {view[1]};\n{patch}"


class Chart(FigureWidget):
    """The four live plots. What changes is drawn by `show`, in one update of the page.

    The figure only ever goes from here to the page: plotly's own module answers each update with a copy of the whole
    figure as the browser sees it, at ten updates a second some 250 kB/s to the kernel, and needs as long for that copy as
    for the picture. `static/chart.js` leaves it out.
    """

    _esm = _front_end()
    _set_trace_uid = False  # the names in `_CURVES` are the uids

    def __init__(self, window: float) -> None:
        super().__init__(data=[_curve(*curve) for curve in _CURVES], layout=_layout())
        self._window = window
        self._config = {"displayModeBar": False, "responsive": True, "displaylogo": False}
        self._shown: dict[str, Any] = {}
        self._told = True

    def show(
        self, rows: NDArray[np.float64], phase: str, origin: float, changed_ts: float, *, page: bool = True
    ) -> None:
        """Draw the rows of a `History`: seconds count from `origin`, latencies are those of `phase`.

        Without a `page` nothing is sent: only `keep` counts then, and nbclient (so papermill too) keeps the arrays of an
        update for ever in the notebook, where JupyterLab then finds no place for them and shows no widget at all.
        `changed_ts`, the instant of the newest event in the picture, is left in the layout's `meta`: there one can see
        how old the picture is.
        """
        columns = {uid: rows[:, COLUMNS[name]] for uid, name in _PLAIN.items()}
        columns |= dict(zip(("p50", "p95", "p99"), rows[:, percentile_columns(phase)].T, strict=True))
        self._told = page
        seconds = (rows[:, 0] - origin).astype(np.float32)
        with self.batch_update():
            for trace in self.data:
                trace.x = seconds
                trace.y = columns[trace.uid].astype(np.float32)
            for path, value in self._changes(columns, seconds, phase).items():
                self.layout[path] = value
            self.layout.meta = {"changed_ts": changed_ts}

    def tell(self) -> None:
        """Send the whole picture as it stands, to a page that may have missed some of the changes."""
        curves = {axis: [getattr(trace, axis) for trace in self.data] for axis in ("x", "y")}
        super()._send_update_msg(curves, self._shown | {"meta": self.layout.meta})

    def _send_update_msg(self, *args: Any, **kwargs: Any) -> None:
        if self._told:
            super()._send_update_msg(*args, **kwargs)

    def _changes(self, columns: dict[str, Any], seconds: NDArray[np.float32], phase: str) -> dict[str, Any]:
        """Return what of the layout differs from what was shown last."""
        time_range = _time_range(float(seconds[-1]) if len(seconds) else 0.0, self._window)
        decades = _decades(np.concatenate([columns["p50"], columns["p99"]]))
        ticks = _latency_ticks(*decades)
        wanted = {
            "xaxis.range": time_range,
            "xaxis2.range": time_range,
            "yaxis.range": [0, _round_up(_highest(columns, "in", "done", "failed"), 10)],
            "yaxis2.range": decades,
            "yaxis2.tickvals": ticks,
            "yaxis2.ticktext": [tick(value) for value in ticks],
            "yaxis3.range": [0, _round_up(_highest(columns, "depth"), 10)],
            "yaxis4.range": [0, _round_up(_highest(columns, "busy", "slots"), 4)],
            "annotations[1].text": _title(LATENCY_NAMES[phase], 2),
        }
        changes = {path: value for path, value in wanted.items() if self._shown.get(path) != value}
        self._shown |= changes
        return changes

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """Return what a page needs that shows the figure anew: also what was drawn since it was made."""
        if key is None and getattr(self, "_shown", None):
            self._trait_values["_widget_data"] = deepcopy(self._data)
            self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)
        return super().get_state(key=key, drop_defaults=drop_defaults)

    def keep(self) -> None:
        """Write the picture into the widget's state, which papermill and a saved notebook keep."""
        with self.hold_sync():
            self._widget_data = deepcopy(self._data)
            self._widget_layout = deepcopy(self._layout_obj._props)

    def __repr__(self) -> str:
        return "Chart()"


def _curve(uid: str, place: int, dash: str, colour: str, name: str) -> dict[str, Any]:
    curve = {
        "type": "scatter",
        "mode": "lines",
        "uid": uid,
        "name": name,
        "x": np.zeros(0, np.float32),
        "y": np.zeros(0, np.float32),
        "xaxis": "x" if place % 2 else "x2",
        "yaxis": "y" if place == 1 else f"y{place}",
        "line": {"color": colour, "dash": dash, "width": 1.6, "simplify": False},
        "hovertemplate": "%{y:.4g}<extra>" + name + "</extra>",
    }
    if uid in _FILLED:
        curve |= {"fill": "tozeroy", "fillcolor": _FILLED[uid]}
    return curve


def _layout() -> dict[str, Any]:
    left, right, top, bottom = [0, 0.455], [0.545, 1], [0.585, 0.925], [0.0, 0.4]
    base = {"fixedrange": True, "gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "tickfont": {"size": 10.5}}
    across = base | {
        "ticksuffix": " s",
        "nticks": 5,
        "range": [0.0, _SHORTEST_AXIS],
        "showgrid": False,
        "hoverformat": ".1f",
        "spikethickness": 1,
        "spikedash": "solid",
        "spikecolor": "rgba(128,128,128,0.6)",
    }
    up = base | {"nticks": 5, "rangemode": "tozero", "separatethousands": True}
    logarithmic = base | {
        "type": "log",
        "range": [-3, -1],
        "hoverformat": ".3s",
    }
    titles = ("Jobs/s", LATENCY_NAMES["total"], "Jobs waiting", "Slots")
    return {
        "template": {},
        "height": 360,
        "autosize": True,
        "showlegend": False,
        "margin": {"l": 46, "r": 12, "t": 4, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "x unified",
        "hoverdistance": 30,
        "dragmode": False,
        "font": {"family": "var(--jp-ui-font-family), system-ui, sans-serif", "size": 12},
        "xaxis": across | {"domain": left, "anchor": "y3"},
        "xaxis2": across | {"domain": right, "anchor": "y4"},
        "yaxis": up | {"domain": top, "anchor": "x"},
        "yaxis2": logarithmic | {"domain": top, "anchor": "x2"},
        "yaxis3": up | {"domain": bottom, "anchor": "x"},
        "yaxis4": up | {"domain": bottom, "anchor": "x2"},
        "annotations": [
            {
                "text": _title(title, place),
                "x": (left if place % 2 else right)[0],
                "y": (top if place <= 2 else bottom)[1] + 0.005,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11.5},
            }
            for place, title in enumerate(titles, 1)
        ],
    }


def _title(title: str, place: int) -> str:
    """Return a plot's title with its legend: where there is more than one curve, each by name, colour and dash."""
    here = [curve for curve in _CURVES if curve[1] == place]
    legend = "".join(
        f'  <span style="color:var(--qml-{uid},{colour})">{_STROKES[dash]} {name}</span>'
        for uid, _, dash, colour, name in here
    )
    return f"<b>{title}</b>{legend if len(here) > 1 else ''}"


def _time_range(now: float, window: float) -> list[float]:
    """Return the seconds from and to which the axis runs: it grows with a run, then scrolls.

    >>> _time_range(3.2, 60.0), _time_range(80.0, 60.0)
    ([0.0, 15.0], [20.0, 80.0])
    """
    first = max(now - window, 0.0)
    return [round(first, 2), round(max(now, first + min(_SHORTEST_AXIS, window)), 2)]


def _highest(columns: dict[str, Any], *names: str) -> float:
    return max((float(np.nanmax(columns[name])) for name in names if len(columns[name])), default=0.0)


def _round_up(value: float, least: float) -> float:
    """Return the end of an axis: a little above the value, and round, so that it moves seldom.

    >>> [_round_up(value, 10) for value in (0, 9, 95, 299, 1000)]
    [10, 10, 100.0, 400.0, 1200.0]
    """
    if value * 1.05 <= least:
        return least
    unit = 10.0 ** floor(log10(value))
    return next(unit * step for step in (1, 1.2, 1.6, 2, 2.5, 3, 4, 5, 6, 8, 10, 12) if unit * step >= value * 1.05)


def _latency_ticks(low: int, high: int) -> list[float]:
    """Return where the axis of latencies from 10**low to 10**high seconds has ticks.

    >>> _latency_ticks(-2, -1), _latency_ticks(-4, -1)
    ([0.01, 0.02, 0.05, 0.1], [0.0001, 0.001, 0.01, 0.1])
    """
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(low, high) for step in steps]
    return [*ticks, float(f"1e{high}")]


def _decades(values: NDArray[np.float64]) -> list[int]:
    """Return the powers of ten that hold all of the values, one decade at the least; those of 1 to 100 ms without any.

    >>> _decades(np.array([0.004, 0.02, np.nan])), _decades(np.array([0.02])), _decades(np.array([np.nan]))
    ([-3, -1], [-2, -1], [-3, -1])
    """
    known = values[values > 0]
    if not len(known):
        return [-3, -1]
    low, high = floor(log10(min(known))), ceil(log10(max(known)))
    return [low, max(high, low + 1)]
