"""`qml-nb lab`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import quote

import typer

from qml_nb.cli.saying import give_up, need

CONTROL_ROOM = Path("notebooks/00_control_room.ipynb")


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
    need("jupyterlab", "lab")
    if not notebook.exists():
        give_up(f"no notebook {notebook} below {Path.cwd()}; go to a checkout of qml-nb, or name a notebook")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.port={port}", *_opening_on(notebook)]
    if not (_has_screen() if browser is None else browser):
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    sys.stdout.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)


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
