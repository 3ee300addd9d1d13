"""The command line: `qml-nb work`, `stats`, `migrate`, `lab` and `bench`."""

from __future__ import annotations

import sys
from typing import Any

import typer

from qml_nb.cli import bench, lab, migrate, stats, work
from qml_nb.errors import QMLError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # a URL with a password may be among them
    help="A job queue whose tuning can be seen.",
)
for command in (work.work, stats.stats, migrate.migrate, lab.lab):
    app.command()(command)
app.add_typer(bench.commands, name="bench")


def main(*arguments: Any) -> None:
    """Run the command line; an error of ours is one line, not a traceback."""
    try:
        app(*arguments)
    except QMLError as error:
        typer.echo(f"qml-nb: {error}", err=True)
        sys.exit(1)
