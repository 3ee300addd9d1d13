"""How old is what a person sees, and is the kernel free meanwhile? `python -m qml_widgets.measure_frames --json`.

Runs a control room in a JupyterLab of its own and looks at it with a headless browser, all on this machine, and prints

- `kernel_ms`: how late a timer of 20 ms rings in the kernel's own event loop while the room runs: that is how long a cell
  or a callback waits. Every ring counts.
- `frame_ms`: how long it takes from the instant at which the storage has settled a job until the picture that counts it is
  on the screen. Each picture carries the instant of the server's newest snapshot in it (`layout.meta.changed_ts`); the
  jobs of a constant load that it is the first to show were settled evenly between that of the picture before and its
  own. So a picture on the screen at d, with snapshots s₀ and s₁, stands for latencies spread evenly from d - s₁ to
  d - s₀, weighted by s₁ - s₀. "On the screen" is the animation frame after plotly says that it has drawn; both clocks are
  this machine's. The wait for the next snapshot, up to 100 ms, is therefore part of it.

The first seconds, while caches are cold, are left out. Exits with 3 if something is not installed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

from qml_widgets.lab import browser_window, command, lab_server, missing, open_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP: Final = 5.0
TIMER: Final = 0.02
_SPREAD: Final = 50
"""Latencies that stand for the jobs of one picture."""
_MISSING: Final = 3
_REMEDY: Final = "packages come with pip install 'qml-nb[lab,test]', the browser with apt-get install chromium"
_START_ROOM: Final = """\
from qml_widgets import ControlRoom
from qml_widgets.measure_frames import Lateness
from qml_widgets.rig import MIXES
room = ControlRoom(rate={rate!r}, workers={workers!r}, mix=MIXES[{mix!r}])
room.start()
lateness = Lateness()
room"""
_TELL: Final = "room.stop(); lateness.write('lateness.json')"
_WATCH: Final = """
window.qmlFrames = [];
document.addEventListener("plotlywidget-after-render", ({ detail: { element } }) => {
    element.on("plotly_afterplot", () => {
        const changed = element.layout.meta?.changed_ts;
        requestAnimationFrame(() => changed && window.qmlFrames.push([changed, Date.now() / 1e3]));
    });
});
"""


class Lateness:
    """Notes how late a timer rings in the running event loop, from now on."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []
        self._task = asyncio.get_running_loop().create_task(self._ring())

    async def _ring(self) -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(TIMER)
            self.seconds.append((monotonic(), perf_counter() - began - TIMER))

    def write(self, path: str) -> None:
        """Stop, and write what was noted since the end of the warm-up into a file."""
        self._task.cancel()
        after = self.seconds[0][0] + WARM_UP
        whole = Path(path + ".part")
        whole.write_text(json.dumps([late for when, late in self.seconds if when > after]))
        whole.rename(path)


def measure(*, seconds: float, rate: float, workers: int, mix: str) -> dict[str, Any]:
    """Run the room and return what the module says, as plain JSON."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cells = _START_ROOM.format(rate=rate, workers=workers, mix=mix), _TELL
        (folder / "frames.ipynb").write_text(json.dumps(_notebook(cells)))
        with lab_server(folder) as url, browser_window() as window:
            page = window.new_page()
            page.add_init_script(_WATCH)
            open_notebook(page, url.format("frames.ipynb"))
            command(page, "notebook:run-cell-and-select-next")
            page.wait_for_function("window.qmlFrames.length > 0", timeout=60_000)
            page.wait_for_timeout((WARM_UP + seconds) * 1e3)
            frames = page.evaluate("window.qmlFrames")
            command(page, "notebook:run-cell-and-select-next")
            lateness = _read(folder / "lateness.json")
    shown = [frame for frame in frames if frame[1] > frames[0][1] + WARM_UP]
    return {
        "seconds": seconds,
        "rate": rate,
        "workers": workers,
        "mix": mix,
        "frames_per_s": round(len(shown) / seconds, 1),
        "kernel_ms": _milliseconds(lateness, 50, 99, 100),
        "frame_ms": _milliseconds(ages(shown), 50, 95, 100),
    }


def ages(frames: Sequence[tuple[float, float]]) -> list[float]:
    """Return latencies in seconds that stand for all jobs, from (newest snapshot, on the screen) of each picture.

    A picture without a newer snapshot than the one before shows no new jobs.

    >>> spread = ages([(1.0, 1.05), (1.1, 1.14), (1.1, 1.2)])
    >>> len(spread), round(min(spread), 3), round(max(spread), 3)
    (50, 0.041, 0.139)
    """
    spread = []
    for (before, _), (newest, drawn) in pairwise(frames):
        steps = round(_SPREAD * (newest - before) / 0.1)  # a longer gap has more jobs in it
        spread += [drawn - before - (newest - before) * (step + 0.5) / steps for step in range(steps)]
    return spread


def _milliseconds(seconds: Sequence[float], *percents: float) -> dict[str, float]:
    ordered = sorted(seconds)
    named = {f"p{percent:g}" if percent < 100 else "max": percent for percent in percents}
    return {name: round(1e3 * ordered[round((len(ordered) - 1) * at / 100)], 1) for name, at in named.items()}


def _notebook(cells: Sequence[str]) -> dict[str, Any]:
    return {
        "cells": [
            {
                "cell_type": "code",
                "id": str(place),
                "source": text,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for place, text in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _read(path: Path, timeout: float = 30.0) -> list[float]:
    end = monotonic() + timeout
    while not path.exists():
        if monotonic() > end:
            raise TimeoutError(f"the kernel did not write {path.name} within {timeout:g} s")
        sleep(0.1)
    lateness: list[float] = json.loads(path.read_text())
    return lateness


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser("qml_widgets.measure_frames", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure, after a warm-up of 5 s")
    parser.add_argument("--rate", type=float, default=1_000.0, help="jobs a second")
    parser.add_argument("--workers", type=int, default=16, help="slots")
    parser.add_argument("--mix", default="no-op", help="tasks, as the room's menu names them")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; see the module."""
    options = _options(arguments)
    if lacking := missing():
        print(f"not installed: {', '.join(lacking)}; {_REMEDY}", file=sys.stderr)  # noqa: T201
        return _MISSING
    found = measure(seconds=options.seconds, rate=options.rate, workers=options.workers, mix=options.mix)
    if options.json:
        print(json.dumps(found))  # noqa: T201
    else:
        for name, value in found.items():
            print(f"{name:13}", value)  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
