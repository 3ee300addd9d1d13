"""Whether the connections to the database are encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from qml_nb.config import PostgresConfig


def encryption(config: PostgresConfig, url: str) -> dict[str, Any]:
    """Return asyncpg's word for `require_ssl`; a URL that wants the certificate checked goes further, and counts."""
    asked = parse_qs(urlsplit(url).query).get("sslmode", [""])[-1]
    return {"ssl": "require"} if config.require_ssl and not asked.startswith("verify-") else {}
