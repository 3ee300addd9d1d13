"""Errors as the text that is stored with a job."""

from __future__ import annotations

from traceback import format_exception, format_exception_only

from qml_nb.errors import RemoteError
from qml_nb.validate import storable

MAX_ERROR = 10_000
"""The longest error text that is stored, in characters; a longer one loses its middle."""


def describe(error: BaseException) -> str:
    """Return an error as text that every storage can keep: type and message first, then the traceback, cut to a bound."""
    if isinstance(error, RemoteError):  # it comes as such text
        return _cut(storable(error.text))
    try:
        first = "".join(format_exception_only(error)).strip()
        trace = "".join(format_exception(error, limit=-20)).strip() if error.__traceback__ is not None else ""
    except BaseException:
        first, trace = f"{type.__repr__(type(error))} whose message can't be shown", ""
    text = _cut(f"{first}\n\n{trace}" if trace else first)
    return _cut(storable(text))


def _cut(text: str) -> str:
    half = MAX_ERROR // 2 - 2
    return text if len(text) <= MAX_ERROR else f"{text[:half]}\n…\n{text[-half:]}"
