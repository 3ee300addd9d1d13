"""Which PostgreSQL the tests of its storage run on: `QML_POSTGRES_PROGRAMS=/usr/lib/postgresql/15/bin pytest tests/postgres`."""

import os

PROGRAMS = os.environ.get("QML_POSTGRES_PROGRAMS")
"""The folder of `initdb` and `postgres`; None for the server that users get."""
