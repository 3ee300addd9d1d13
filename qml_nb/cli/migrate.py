"""`qml-nb migrate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qml_nb.cli.place import SchemaName, TableName, Url, given, is_postgres
from qml_nb.config import without_password
from qml_nb.errors import SchemaMismatch
from qml_nb.storage import storage_of
from qml_nb.storage.sync import run_sync


def migrate(
    url: Url,
    schema_name: SchemaName = None,
    table_name: TableName = None,
    check: Annotated[bool, typer.Option(help="Change nothing; end with status 1 if there is something to do.")] = False,
) -> None:
    """Bring what a storage keeps to the form that this version reads.

    Needed where storages are opened with auto_migrate=False, as by a role that may not make tables. Safe to repeat, from
    many processes at once, and while jobs run. Memory and Redis have nothing to migrate.

    Examples:

        qml-nb migrate postgresql://owner@db.example.com/app

        qml-nb migrate postgresql://owner@db.example.com/app --schema-name queue --check
    """
    typer.echo(run_sync(_migrate(url, given(schema_name=schema_name, table_name=table_name), check)))


async def _migrate(url: str, names: dict[str, str], check: bool) -> str:
    options: dict[str, Any] = names | ({"auto_migrate": False} if is_postgres(url) else {})
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
