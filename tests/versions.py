"""Which PostgreSQL the tests of its storage run on: `QML_POSTGRES_PROGRAMS=/usr/lib/postgresql/15/bin pytest tests/postgres`."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

from qml_nb.servers.postgres import find_postgres

PROGRAMS = os.environ.get("QML_POSTGRES_PROGRAMS")
"""The folder of `initdb` and `postgres`; None for the server that users get."""


@cache
def version() -> str:
    """The server's own word, as "18.6"."""
    program = Path(PROGRAMS or find_postgres()) / "postgres"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    [found] = re.findall(r"\(PostgreSQL\) ([\w.]+)", said)
    return str(found)
