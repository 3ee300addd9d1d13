"""`qml-nb bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from qml_nb.cli.saying import give_up, need, say
from qml_nb.tuning.figures import Figure, as_records, as_table, figure, machine

commands = typer.Typer(no_args_is_help=True, help="Measure the queue on this machine.")

_FRAME_SECONDS = 20


@commands.command()
def limits(
    storage: Annotated[str, typer.Option(help="Which storage: memory, redis, postgres.")] = "memory",
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Runs of each rate; their median counts.")] = 5,
    page: Annotated[bool, typer.Option(help="With memory, measure the control room in Chromium as well.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure how fast the storage is, each figure beside its raw limit in the same run.

    Takes one to four minutes. Absolute figures drift with the machine: the share of the limit is what lasts.
    For redis and postgres it starts servers of its own.

    Examples:

        qml-nb bench limits --storage memory

        qml-nb bench limits --storage redis

        qml-nb bench limits --storage postgres --repeats 3

        qml-nb bench limits --storage memory --no-page --json > limits.json
    """
    if storage not in ("memory", *_FIGURES):
        give_up(f"expected --storage to be {', '.join(('memory', *_FIGURES))}; got {storage!r}")
    need("psutil", "lab")
    say(f"{machine()}; {repeats} runs each")
    figures = _memory_figures(repeats, page) if storage == "memory" else _FIGURES[storage](repeats)
    typer.echo(json.dumps({"machine": machine(), "figures": as_records(figures)}) if as_json else as_table(figures))


@commands.command()
def servers(
    storage: Annotated[str, typer.Option(help="Which storage: redis, postgres.")] = "redis",
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Runs of each but the last two.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure what servers and pools cost, and whether they keep to what they promise.

    What telemetry, middleware and hooks cost a drain; what a second process brings; how soon prefetched jobs are back after
    a stop, and processes gone after their kernel; how late due jobs and recurring ones are. Takes two to three minutes,
    on a server of its own.

    Examples:

        qml-nb bench servers

        qml-nb bench servers --storage postgres --repeats 1 --json
    """
    from qml_nb.tuning.server_figures import server_figures

    if storage not in _FIGURES:
        give_up(f"expected --storage to be {' or '.join(_FIGURES)}, got {storage!r}")
    say(f"{machine()}; {repeats} runs each")
    figures = list(server_figures(storage, repeats, say))
    typer.echo(json.dumps({"machine": machine(), "figures": as_records(figures)}) if as_json else as_table(figures))


@commands.command()
def rows(
    numbers: Annotated[list[int] | None, typer.Argument(help="Numbers of the guide's rows; none for all.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Only rows about this storage: redis, postgres; left out, both.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Run rows of the performance guide, and print what is measured beside what the guide claims.

    It starts servers of its own. The rows about Redis are 17 to 22, 31, 34, 42 and 57 to 59; those about PostgreSQL are
    23 to 29, 32, 35, 41, 46 to 49, 55 and 56. All of them take about a minute.

    Examples:

        qml-nb bench rows

        qml-nb bench rows --storage postgres

        qml-nb bench rows 31 32 --json
    """
    from qml_nb.tuning import postgres_rows, redis_rows
    from qml_nb.tuning.rows import run_rows

    tables = {"redis": redis_rows.ROWS, "postgres": postgres_rows.ROWS, None: redis_rows.ROWS | postgres_rows.ROWS}
    if storage not in tables:
        give_up(f"expected --storage to be redis or postgres, got {storage!r}")
    table = tables[storage]
    if unknown := sorted(set(numbers or ()) - set(table)):
        about = "" if storage is None else f" about {storage}"
        give_up(f"no row {unknown[0]}{about}; there are {', '.join(map(str, sorted(table)))}")
    say(machine())
    measured = []
    for row in run_rows(table, numbers or ()):
        measured.append(row)
        if not as_json:
            typer.echo(f"{row.row:>3}  {row.what:<60} {row.value:>14,.6g} {row.unit:<9} guide: {row.claim or '–'}")
    if as_json:
        typer.echo(json.dumps({"machine": machine(), "rows": to_builtins(measured)}))


def _memory_figures(repeats: int, page: bool) -> list[Figure]:
    from qml_nb.tuning.memory_limits import memory_figures

    return [*memory_figures(repeats, say), *(_page_figures() if page else [])]


def _redis_figures(repeats: int) -> list[Figure]:
    from qml_nb.tuning.redis_limits import redis_figures

    return list(redis_figures(repeats, say))


def _postgres_figures(repeats: int) -> list[Figure]:
    from qml_nb.tuning.postgres_limits import postgres_figures

    return list(postgres_figures(repeats, say))


_FIGURES = {"redis": _redis_figures, "postgres": _postgres_figures}


def _page_figures() -> list[Figure]:
    """Ask the widgets, which this package knows nothing of, in a process of their own."""
    if find_spec("qml_widgets") is None:
        say("control room: not measured, qml_widgets is not installed")
        return []
    say("the control room in Chromium, driving 1,000 jobs/s")
    command = [sys.executable, "-m", "qml_widgets.measure_frames", "--seconds", str(_FRAME_SECONDS), "--rate", "1000"]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        say(f"control room: not measured, it ended with status {done.returncode}")
        return []
    measured: dict[str, Any] = json.loads(done.stdout)
    kernel, frame = measured["kernel_ms"], measured["frame_ms"]
    return [
        _page_figure(
            "kernel latency: lateness of a 20 ms timer, control room at 1,000 jobs/s, p99", kernel, "p99", 50.0
        ),
        _page_figure("control room: state change to drawn frame in Chromium, p95", frame, "p95", 200.0),
    ]


def _page_figure(what: str, measured: dict[str, float], percent: str, goal: float) -> Figure:
    one = figure(what, [measured[percent]], "ms", goal=goal, at_least=False)
    return Figure(one.what, one.value, one.unit, measured["p50"], measured["max"], goal, at_least=False)
