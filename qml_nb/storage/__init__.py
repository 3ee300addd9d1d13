"""Storages: `open_storage(url)` makes one. This is the only place that names the backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from qml_nb.errors import InvalidValue
from qml_nb.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from qml_nb.storage.storage import Storage

__all__ = ["MemoryStorage", "open_storage"]


async def open_storage(url: str, **options: Any) -> Storage:
    """Open the storage that a URL names: `memory://`, with options as in `memory://?max_jobs=10000`.

    Raises:
        InvalidValue: no backend has such a URL.
        UnknownOption: the backend has no such option.
    """
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme != "memory" or parts.netloc or parts.path:
        raise InvalidValue("url", "to be a storage's URL", url, "this version has memory://")
    return await MemoryStorage(**_numbers(parts.query), **options).__aenter__()


def _numbers(query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        return {name: None if text == "none" else float(text) if "." in text else int(text) for name, text in pairs}
    except ValueError:
        raise InvalidValue("url", "to have options as name=number, or none", query) from None
