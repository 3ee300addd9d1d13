"""A PgBouncer of the test's own, in front of a server."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from qml_nb.servers.children import ChildProcesses
from qml_nb.servers.postgres import PostgresSettings
from tests.places import free_port
from tests.servers.asking import until

SETTINGS = {
    "auth_type": "trust",
    "auth_file": "users",
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "pool_mode": "transaction",
    "default_pool_size": "3",
}


def find_pgbouncer() -> str:
    """The program; without it the test fails on CI, and is skipped elsewhere."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("not installed: pgbouncer")
    if found is None:
        pytest.skip("not installed: pgbouncer")
    return found


@contextmanager
def pgbouncer(server: str, pem: Path | None = None, **settings: str) -> Iterator[str]:
    """The URL of the server's database `postgres` by way of a pooler, which speaks TLS with that certificate."""
    program, port, account = find_pgbouncer(), free_port(), PostgresSettings().account
    directory = Path(mkdtemp(prefix="qml-pgbouncer-"))
    (directory / "users").write_text('"postgres" ""\n')
    if pem is not None:
        shutil.copy(pem, directory / "pem")
        settings |= {"client_tls_sslmode": "require", "client_tls_cert_file": "pem", "client_tls_key_file": "pem"}
    lines = [f"{name} = {value}" for name, value in {**SETTINGS, "listen_port": str(port), **settings}.items()]
    (directory / "ini").write_text("\n".join([f"[databases]\npostgres = {_target(server)}\n[pgbouncer]", *lines]))
    if account:  # like PostgreSQL itself, it refuses root
        os.chown(directory, account["user"], account["group"])
    children, log = ChildProcesses(directory), directory / "log"
    try:
        process = children.start([program, "ini"], directory, log, account)
        until(lambda: b"process up" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        children.stop()


def _target(server: str) -> str:
    host, port = server.partition("@")[2].partition("/")[0].split(":")
    return f"host={host} port={port}"
