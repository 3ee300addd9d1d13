"""The command line: `qml-nb lab`, `qml-nb migrate`, `qml-nb bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from msgspec import to_builtins

from qml_nb.config import without_password
from qml_nb.errors import QMLError, SchemaMismatch
from qml_nb.storage import storage_of
from qml_nb.storage.sync import run_sync
from qml_nb.tuning.figures import Figure, as_records, as_table, figure, machine

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A job queue whose tuning can be seen.")
bench = typer.Typer(no_args_is_help=True, help="Measure the queue on this machine.")
app.add_typer(bench, name="bench")

CONTROL_ROOM = Path("notebooks/00_control_room.ipynb")
_FRAME_SECONDS = 20


@app.command()
def lab(
    notebook: Annotated[Path, typer.Argument(help="The notebook to open.")] = CONTROL_ROOM,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The first port to try.")] = 8888,
    browser: Annotated[
        bool | None, typer.Option(help="Open a browser; without a screen the default is not to.")
    ] = None,
) -> NoReturn:
    """Open JupyterLab on the control room.

    Without a screen it prints the URL to open elsewhere. Ctrl-C, twice, ends it.

    Examples:

        qml-nb lab

        qml-nb lab my_notebook.ipynb --port 9000 --no-browser
    """
    _need("jupyterlab", "lab")
    if not notebook.exists():
        _give_up(f"no notebook {notebook} below {Path.cwd()}; go to a checkout of qml-nb, or name a notebook")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.port={port}", *_opening_on(notebook)]
    if not (_has_screen() if browser is None else browser):
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    sys.stdout.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)


@app.command()
def migrate(
    url: Annotated[str, typer.Argument(help="The storage, as in postgresql://user@host:5432/database.")],
    schema_name: Annotated[str | None, typer.Option(help="PostgreSQL: the schema, if it is not qml.")] = None,
    table_name: Annotated[str | None, typer.Option(help="PostgreSQL: the table, if it is not qml_jobs.")] = None,
    check: Annotated[bool, typer.Option(help="Change nothing; end with status 1 if there is something to do.")] = False,
) -> None:
    """Bring what a storage keeps to the form that this version reads.

    Needed where storages are opened with auto_migrate=False, as by a role that may not make tables. Safe to repeat, from
    many processes at once, and while jobs run. Memory and Redis have nothing to migrate.

    Examples:

        qml-nb migrate postgresql://owner@db.example.com/app

        qml-nb migrate postgresql://owner@db.example.com/app --schema-name queue --check
    """
    names = {"schema_name": schema_name, "table_name": table_name}
    typer.echo(run_sync(_migrate(url, {name: value for name, value in names.items() if value is not None}, check)))


async def _migrate(url: str, names: dict[str, str], check: bool) -> str:
    is_postgres = url.partition(":")[0].lower() in ("postgres", "postgresql")
    options: dict[str, Any] = names | ({"auto_migrate": False} if is_postgres else {})
    storage, shown = storage_of(url, **options), without_password(url)
    try:
        await storage.backend.open()
    except SchemaMismatch as found:
        if check:
            raise
        await storage.migrate()
        done = (
            f"from schema version {found.found} to {found.wanted}"
            if found.found
            else f"to schema version {found.wanted}"
        )
        return f"{shown}: {found.name} was brought {done}"
    finally:
        await storage.close()
    return f"{shown}: nothing to migrate"


@bench.command()
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
        _give_up(f"expected --storage to be {', '.join(('memory', *_FIGURES))}; got {storage!r}")
    _need("psutil", "lab")
    _say(f"{machine()}; {repeats} runs each")
    figures = _memory_figures(repeats, page) if storage == "memory" else _FIGURES[storage](repeats)
    typer.echo(json.dumps({"machine": machine(), "figures": as_records(figures)}) if as_json else as_table(figures))


@bench.command()
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
        _give_up(f"expected --storage to be redis or postgres, got {storage!r}")
    table = tables[storage]
    if unknown := sorted(set(numbers or ()) - set(table)):
        about = "" if storage is None else f" about {storage}"
        _give_up(f"no row {unknown[0]}{about}; there are {', '.join(map(str, sorted(table)))}")
    _say(machine())
    measured = []
    for row in run_rows(table, numbers or ()):
        measured.append(row)
        if not as_json:
            typer.echo(f"{row.row:>3}  {row.what:<60} {row.value:>14,.6g} {row.unit:<9} guide: {row.claim or '–'}")
    if as_json:
        typer.echo(json.dumps({"machine": machine(), "rows": to_builtins(measured)}))


def _memory_figures(repeats: int, page: bool) -> list[Figure]:
    from qml_nb.tuning.memory_limits import memory_figures

    return [*memory_figures(repeats, _say), *(_page_figures() if page else [])]


def _redis_figures(repeats: int) -> list[Figure]:
    from qml_nb.tuning.redis_limits import redis_figures

    return list(redis_figures(repeats, _say))


def _postgres_figures(repeats: int) -> list[Figure]:
    from qml_nb.tuning.postgres_limits import postgres_figures

    return list(postgres_figures(repeats, _say))


_FIGURES = {"redis": _redis_figures, "postgres": _postgres_figures}


def _page_figures() -> list[Figure]:
    """Ask the widgets, which this package knows nothing of, in a process of their own."""
    if find_spec("qml_widgets") is None:
        _say("control room: not measured, qml_widgets is not installed")
        return []
    _say("the control room in Chromium, driving 1,000 jobs/s")
    command = [sys.executable, "-m", "qml_widgets.measure_frames", "--seconds", str(_FRAME_SECONDS), "--rate", "1000"]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        _say(f"control room: not measured, it ended with status {done.returncode}")
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


def _opening_on(notebook: Path) -> list[str]:
    """Return what makes the printed address the notebook's: given as a file, it would be that of an empty JupyterLab."""
    here = Path.cwd()
    notebook = notebook.resolve()
    root = here if notebook.is_relative_to(here) else notebook.parent
    path = quote(notebook.relative_to(root).as_posix())
    return [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{path}"]


def _has_screen() -> bool:
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def _need(module: str, extra: str) -> None:
    if find_spec(module) is None:
        _give_up(f"this needs {module}; try: pip install 'qml-nb[{extra}]'")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _give_up(why: str) -> NoReturn:
    typer.echo(f"qml-nb: {why}", err=True)
    raise typer.Exit(2)


def main(*arguments: Any) -> None:
    """Run the command line; an error of ours is one line, not a traceback."""
    try:
        app(*arguments)
    except QMLError as error:
        typer.echo(f"qml-nb: {error}", err=True)
        sys.exit(1)
