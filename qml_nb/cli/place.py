"""How commands are told which storage they are about."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str, typer.Argument(help="The storage, as in redis://host:6379/0 or postgresql://user@host:5432/database.")
]
SchemaName = Annotated[str | None, typer.Option(help="PostgreSQL: the schema, if it is not qml.")]
TableName = Annotated[str | None, typer.Option(help="PostgreSQL: the table, if it is not qml_jobs.")]
KeyPrefix = Annotated[str | None, typer.Option(help="Redis: what all keys start with, if it is not qml.")]


def given(**options: str | None) -> dict[str, str]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def is_postgres(url: str) -> bool:
    """Whether the URL is one of PostgreSQL."""
    return url.partition(":")[0].lower() in ("postgres", "postgresql")
