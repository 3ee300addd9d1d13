"""`ControlRoom`: a worker pool, its load, and live pictures of both, in one cell."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from ipywidgets import Box

from qml_nb import QMLError
from qml_nb.errors import InvalidValue
from qml_nb.load import Mix, synthetic_tasks
from qml_nb.server.telemetry import PHASES
from qml_widgets.chart import Chart
from qml_widgets.refresher import Refresher
from qml_widgets.rig import MIXES, Rig
from qml_widgets.screen import NOTHING, Screen, numbers
from qml_widgets.storages import Storages
from qml_widgets.switch import Switch
from qml_widgets.views import Panel, Readout

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType

    from qml_nb import Storage, WorkerPool, WorkerRegistry
    from qml_nb.load import LoadGenerator
    from qml_nb.measure import Monitor, Sample


class ControlRoom(Box):
    """Starts and stops a pool and its load, by mouse or from code, and shows live what they do.

    Put it last in a cell. `start`, `stop`, `burst`, `resize`, `use_storage` and the attributes `rate`, `arrivals`, `mix`,
    `failing` and `phase` do what the page's knobs do; all return at once and may be called from any thread. `close`, or
    leaving it as a context manager, stops everything and takes the widget away. All threads end with the process.

    Args:
        storage: where the jobs go, never closed by the room; None for a `MemoryStorage` of its own. See `use_storage`.
        registry: the tasks; None for `synthetic_tasks()`, which run what the load sends.
        workers: slots of the pool.
        rate: jobs a second.
        arrivals: "constant" or "poisson".
        mix: which jobs; None for sleeps of 10 ms.
        queue: the queue that the load fills and the pool serves.
        seed: of everything that the load draws.
        window: seconds that the plots, and `monitor.samples`, reach back.
        options: further options of `ServerConfig`.
    """

    def __init__(
        self,
        storage: Storage | None = None,
        registry: WorkerRegistry | None = None,
        *,
        workers: int = 4,
        rate: float = 300.0,
        arrivals: str = "constant",
        mix: Mix | None = None,
        queue: str = "default",
        seed: int = 0,
        window: float = 60.0,
        **options: Any,
    ) -> None:
        storages = Storages(storage)
        self._rig = Rig(
            storages.memory() if storage is None else storage,
            synthetic_tasks() if registry is None else registry,
            workers=workers,
            rate=rate,
            arrivals=arrivals,
            mix=MIXES["sleep 10 ms"] if mix is None else mix,
            queue=queue,
            seed=seed,
            window=window,
            **options,
        )
        self._phase, self._notice = "total", ""
        self._refresher = Refresher(self._draw)
        self._switch = Switch(self._rig, storages, self._poke)
        self._chart = Chart(window)
        self._panel = Panel(self._obey, self._settings())
        self._readout = Readout(self._obey, numbers(NOTHING, 0.0, self._phase, ""))
        self._screen = Screen(self._chart, self._readout, window)
        self._chart.add_class("qml-chart")
        super().__init__(children=[Box([self._panel, self._readout, self._chart]).add_class("qml-grid")])
        self.add_class("qml-room")
        self.monitor.listeners.append(self._receive)
        self.monitor.on_error.append(self._poke)

    # -- what the knobs do, for code

    def start(self, *, pool: bool = True, load: bool = True) -> None:
        """Start pool and load with the settings of now, or one of them. What is still stopping starts when it has."""
        self._notice = ""
        self._rig.start(pool=pool, load=load)
        self._refresher.poke()

    def stop(self, *, pool: bool = True, load: bool = True) -> None:
        """Stop load and pool, or one of them. Jobs that run get a moment to end, jobs that wait stay in the queue."""
        self._rig.stop(pool=pool, load=load)
        self._refresher.poke()

    def burst(self, jobs: int) -> None:
        """Send that many jobs at once, on top of the load or without it."""
        self._rig.burst(jobs)

    def resize(self, workers: int) -> None:
        """Change the number of slots. Jobs that run in slots too many end in peace."""
        self.pool.resize(workers)
        self._refresher.poke()

    def use_storage(self, where: str | Storage) -> Future[Storage]:
        """Go over to another storage: "memory", "local Redis", "local PostgreSQL", any URL, or a `Storage`.

        Returns at once. What runs goes on where it is until the new storage answers, and for good if it does not;
        `result()` of what is returned waits for it, and raises why not. What the old storage holds stays there. A local
        server is started for this room and ends with it; "from code" names the last storage that code gave; a URL is one
        of `open_storage`.
        """
        self._rig.check_open()
        return self._switch.to(where)

    @property
    def storage(self) -> Storage:
        """The storage in use."""
        return self._rig.storage

    @property
    def workers(self) -> int:
        """Slots of the pool; see `resize`."""
        return self.pool.worker_count

    @property
    def rate(self) -> float:
        """Jobs a second that the load sends while it runs."""
        return self.load.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.load.rate = rate
        self._refresher.poke()

    @property
    def arrivals(self) -> str:
        """How the jobs are spread over time: "constant" or "poisson"."""
        return self.load.arrivals

    @arrivals.setter
    def arrivals(self, arrivals: str) -> None:
        self.load.arrivals = arrivals
        self._refresher.poke()

    @property
    def mix(self) -> Mix:
        """Which jobs the load sends."""
        return self.load.mix

    @mix.setter
    def mix(self, mix: Mix) -> None:
        if not isinstance(mix, Mix):
            raise InvalidValue("mix", "to be a Mix", mix, "write Mix(noop=1)")
        self.load.mix = mix
        self._refresher.poke()

    @property
    def failing(self) -> float:
        """The share of jobs that fail, from 0 to 1."""
        return self.mix.failing

    @failing.setter
    def failing(self, share: float) -> None:
        self.mix = replace(self.mix, failing=share)

    @property
    def phase(self) -> str:
        """The phase of a job whose latency is plotted: queue_wait, slot_wait, run, settle or total."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in PHASES:
            raise InvalidValue("phase", f"to be one of {', '.join(PHASES)}", phase)
        self._phase = phase
        self._refresher.poke()

    # -- what it is made of

    @property
    def pool(self) -> WorkerPool:
        """The pool, for what the room has no knob for; another one after a change of the storage."""
        return self._rig.pool

    @property
    def load(self) -> LoadGenerator:
        """The load: how many jobs it has `sent`, how many were `late` or `refused`."""
        return self._rig.load

    @property
    def monitor(self) -> Monitor:
        """The measurements: `monitor.samples`, `monitor.to_frame()`."""
        return self._rig.monitor

    @property
    def is_running(self) -> bool:
        """Whether pool or load run, or are about to."""
        return self._rig.pool_on or self._rig.load_on

    def close(self) -> None:
        """Stop pool, load and monitor for good, and take the widget out of the page. Returns at once."""
        rig = getattr(self, "_rig", None)  # ipywidgets also closes what was never made
        if rig is not None and not rig.closed:
            self._switch.close()
            rig.close()
            with suppress(ValueError):  # a caller may have taken them away
                self.monitor.on_error.remove(self._poke)
                self.monitor.listeners.remove(self._receive)
            self._refresher.close()
            for part in (self._panel, self._readout, self._chart, *self.children):
                part.close()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._rig.closed else "running" if self.is_running else "stopped"
        return f"ControlRoom({self.workers} slots, {self.rate:g} jobs/s, {self.arrivals}, {self._rig.tasks}, {state})"

    # -- from the page, in whatever thread the kernel chose

    def _obey(self, command: dict[str, Any]) -> None:
        what, value = command.get("do"), command.get("value")
        try:
            if what == "seen":
                self._screen.note(*_view(value))
            else:
                self._notice = ""
                self._turn(what, value)
        except (QMLError, TypeError) as error:  # what a page sends is input
            self._notice = str(error)
        self._refresher.poke()

    def _turn(self, knob: object, value: Any) -> None:
        match knob:
            case "start" | "stop" | "burst" | "resize":
                getattr(self, knob)(*([] if value is None else [value]))
            case "pool" | "load":
                switch = self.start if value else self.stop
                switch(pool=knob == "pool", load=knob == "load")
            case "rate" | "arrivals" | "failing" | "phase":
                setattr(self, knob, value)
            case "storage" if isinstance(value, str):
                self.use_storage(value)
            case "tasks" if isinstance(value, str) and value in MIXES:
                self.mix = replace(MIXES[value], failing=self.failing)
            case _:
                raise InvalidValue("command", "to be one that the control room knows", (knob, value))

    # -- to the page, in the refresher's thread

    def _receive(self, sample: Sample) -> None:
        self._screen.take(sample)
        self._refresher.poke()

    def _poke(self) -> None:
        self._refresher.poke()

    def _draw(self) -> None:
        self._rig.settle()
        if self._screen.audience.watches or self._screen.rests:
            self._panel.facts = self._settings()
        self._screen.draw(self._phase)

    def _settings(self) -> dict[str, Any]:
        rig = self._rig
        return {
            "pool": self.pool.state,
            "pool_on": rig.pool_on,
            "load_on": rig.load_on,
            "rate": self.rate,
            "workers": self.workers,
            "arrivals": self.arrivals,
            "tasks": rig.tasks,
            "mixes": list(MIXES),
            "failing": self.failing,
            "storage": self._switch.facts,
            "away": self.monitor.is_running and self.monitor.error is not None,
            "troubles": [*self._switch.troubles, *rig.troubles, *([self._notice] if self._notice else [])],
        }


def _view(value: Any) -> tuple[str, bool | None]:
    """Return which view tells that it is visible, hidden or (None) gone."""
    if not isinstance(value, dict):
        raise InvalidValue("view", "to say which it is", value)
    visible = value.get("visible")
    return str(value.get("view"))[:64], None if visible is None else bool(visible)
