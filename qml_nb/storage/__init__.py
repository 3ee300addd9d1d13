"""Storages: `open_storage(url)` makes one. This is the only place that names the backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from qml_nb.config import without_password
from qml_nb.errors import InvalidValue
from qml_nb.storage.memory import MemoryStorage
from qml_nb.storage.postgres import PostgresStorage
from qml_nb.storage.postgres.plain import postgres_connection, postgres_tables
from qml_nb.storage.redis import RedisStorage
from qml_nb.storage.redis.plain import redis_clients

if TYPE_CHECKING:
    from qml_nb.storage.storage import Storage

__all__ = [
    "MemoryStorage",
    "PostgresStorage",
    "RedisStorage",
    "open_storage",
    "postgres_connection",
    "postgres_tables",
    "redis_clients",
    "storage_of",
]

_POSTGRES = ("postgres", "postgresql")
_REDIS = ("redis", "rediss", "unix")


async def open_storage(url: str, **options: Any) -> Storage:
    """Open the storage that a URL names, with its options: those of `MemoryConfig`, `RedisConfig` or `PostgresConfig`.

    `memory://`, also as `memory://?max_jobs=10000`; `redis://host:6379/0`, `rediss://…` over TLS,
    `redis+cluster://host:port,host:port`, `redis+sentinel://host:port,host:port/service`; `postgresql://user@host/database`.

    Raises:
        InvalidValue: no backend has such a URL.
        UnknownOption: the backend has no such option.
        StorageUnavailable: the server can't be reached.
    """
    return await storage_of(url, **options).__aenter__()


def storage_of(url: str, **options: Any) -> Storage:
    """Make the storage that a URL names, as `open_storage` does, and don't open it yet."""
    scheme, colon, rest = url.partition(":") if isinstance(url, str) else ("", "", "")
    if colon and scheme.lower().partition("+")[0] in _REDIS:
        storage: Storage = RedisStorage(url=url, **options)
    elif colon and scheme.lower() in _POSTGRES:
        storage = PostgresStorage(database_url=url, **options)
    elif colon and scheme.lower() == "memory" and rest.partition("?")[0] in ("", "//"):
        storage = MemoryStorage(**_numbers(rest.partition("?")[2]), **options)
    else:
        shown = without_password(url) if isinstance(url, str) else url
        raise InvalidValue("url", "to be a storage's URL", shown, "write memory://, redis://host:6379/0 or one like it")
    return storage


def _numbers(query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        return {name: None if text == "none" else float(text) if "." in text else int(text) for name, text in pairs}
    except ValueError:
        raise InvalidValue("url", "to have options as name=number, or none", query) from None
