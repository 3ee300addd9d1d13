"""What commands say on stderr, and how they give up."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NoReturn

import typer


def need(module: str, extra: str) -> None:
    """Give up unless the module, which an extra of the package brings, is installed."""
    if find_spec(module) is None:
        give_up(f"this needs {module}; try: pip install 'qml-nb[{extra}]'")


def say(text: str) -> None:
    """Print a line on stderr."""
    typer.echo(text, err=True)


def give_up(why: str) -> NoReturn:
    """End with status 2, and say why."""
    typer.echo(f"qml-nb: {why}", err=True)
    raise typer.Exit(2)
