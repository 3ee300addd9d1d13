"""Whether the connections to the database are encrypted."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qml_nb.config import PostgresConfig


def encryption(config: PostgresConfig) -> dict[str, Any]:
    """Return asyncpg's word for `require_ssl`."""
    if not config.require_ssl:
        return {}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as libpq's sslmode=require: encrypted
    return {"ssl": context}
