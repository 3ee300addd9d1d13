"""Storages: `open_storage(url)` makes one. This is the only place that names the backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from qml_nb.errors import InvalidValue
from qml_nb.storage.memory import MemoryStorage
from qml_nb.storage.redis import RedisStorage

if TYPE_CHECKING:
    from qml_nb.storage.storage import Storage

__all__ = ["MemoryStorage", "RedisStorage", "open_storage"]

_REDIS = ("redis", "rediss", "unix")


async def open_storage(url: str, **options: Any) -> Storage:
    """Open the storage that a URL names, with its options: those of `MemoryConfig` or `RedisConfig`.

    `memory://`, also as `memory://?max_jobs=10000`; `redis://host:6379/0`, `rediss://…` over TLS,
    `redis+cluster://host:port,host:port`, `redis+sentinel://host:port,host:port/service`.

    Raises:
        InvalidValue: no backend has such a URL.
        UnknownOption: the backend has no such option.
        StorageUnavailable: the server can't be reached.
    """
    scheme = urlsplit(url).scheme if isinstance(url, str) else ""
    if scheme.partition("+")[0] in _REDIS:
        storage: Storage = RedisStorage(url=url, **options)
    elif scheme == "memory" and not urlsplit(url).netloc and not urlsplit(url).path:
        storage = MemoryStorage(**_numbers(urlsplit(url).query), **options)
    else:
        raise InvalidValue("url", "to be a storage's URL", url, "write memory://, redis://host:6379/0 or one like it")
    return await storage.__aenter__()


def _numbers(query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        return {name: None if text == "none" else float(text) if "." in text else int(text) for name, text in pairs}
    except ValueError:
        raise InvalidValue("url", "to have options as name=number, or none", query) from None
