"""Checks of values that come from outside. Each names the field, the value and the remedy, before anything is stored."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import lru_cache
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from qml_nb.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAME = 255
"""The longest queue, method, worker or lock name, in characters."""
MAX_DEPTH = 100
"""How deep arguments may nest: a decoder that meets them on a deep stack must still have room."""
INT32 = 2**31
LONGEST = 100 * 365 * 86_400.0
"""The longest duration, a hundred years of seconds: an instant this far away is still a datetime."""

_ATOMS = frozenset((str, int, bool, type(None)))
_encode = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode

# Queue and method names repeat for ever, so each is checked and interned once. Bounded, because names are input.
_names: dict[object, str] = {}
_NAMES_KEPT = 10_000


def check_name(field: str, value: object, error: type[InvalidValue] = InvalidValue) -> str:
    """Return the text, interned, if it can name something: 1 to 255 characters, not blank, no NUL, valid Unicode."""
    known = _names.get(value) if type(value) is str else None
    return known if known is not None else _check_new_name(field, value, error)


def _check_new_name(field: str, value: object, error: type[InvalidValue]) -> str:
    if not isinstance(value, str):
        raise error(field, "to be text", value, "name it with a str")
    if not value.strip():
        raise error(field, "to be a name", value, "leave it out for the default, or give at least one character")
    if len(value) > MAX_NAME:
        raise error(field, f"to have at most {MAX_NAME} characters", value, f"shorten it from {len(value)}")
    if "\0" in value:
        raise error(field, "to have no NUL character", value, "remove it, PostgreSQL can't store it")
    if not _is_unicode(value):
        raise error(field, "to be valid Unicode", value, "remove the lone surrogate")
    if len(_names) >= _NAMES_KEPT:
        _names.clear()
    _names[value] = name = sys.intern(str(value))
    return name


def check_names(field: str, values: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the names in order and once each; None or nothing means all, and comes back as None."""
    if values is None:
        return None
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InvalidValue(field, "to be a list of names", values, f"write [{values!r}]")
    return _check_names(field, tuple(values))


@lru_cache(_NAMES_KEPT)  # a server asks with the same names thousands of times a second
def _check_names(field: str, values: tuple[object, ...]) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys([check_name(field, value) for value in values])) or None


def check_int(
    field: str, value: object, least: int, most: int = INT32 - 1, error: type[InvalidValue] = InvalidValue
) -> int:
    """Return the whole number if it lies within the bounds, both included. A bool is not a number here."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise error(field, "to be a whole number", value, "give an int")
    if value < least:
        raise error(field, f"to be at least {least}", value)
    if value > most:
        raise error(field, f"to be at most {most}", value)
    return int(value)


def check_seconds(field: str, value: object, *, above: bool = True, error: type[InvalidValue] = InvalidValue) -> float:
    """Return the duration in seconds if it is above 0 (at least 0 with `above=False`), and at most a hundred years."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < inf:
        raise error(field, "to be a finite number of seconds", value, "give a float of seconds")
    if value < 0 or (above and value == 0):
        raise error(field, "to be above 0 seconds" if above else "to be at least 0 seconds", value)
    if value > LONGEST:
        raise error(field, f"to be at most {LONGEST:.0f} seconds (a hundred years)", value)
    return float(value)


def check_rate(field: str, value: object) -> float:
    """Return the number if it is neither 0 nor so far from 1 that sums of its inverse would be lost or endless."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1e-9 <= value <= 1e9:
        raise InvalidValue(field, "to be a number from 1e-9 to 1e9", value)
    return float(value)


def check_bool(field: str, value: object) -> bool:
    """Return the value if it is True or False."""
    if not isinstance(value, bool):
        raise InvalidValue(field, "to be True or False", value)
    return value


def check_instant(field: str, value: object, error: type[InvalidValue] = InvalidValue) -> float:
    """Return an aware datetime as POSIX seconds."""
    if not isinstance(value, datetime):
        raise error(field, "to be a datetime", value)
    if value.utcoffset() is None:
        raise error(field, "to be an aware datetime", value, "add a time zone, as in datetime.now(UTC)")
    timestamp = value.timestamp()
    try:
        instant(timestamp)
    except (OverflowError, ValueError):
        raise error(field, "to lie in the years 1 to 9999 of UTC", value) from None
    return timestamp


def posix(now: datetime | None) -> float | None:
    """Return what stands in for a storage's clock as POSIX seconds; None stays None."""
    return None if now is None else check_instant("now", now)


def instant(timestamp: float | None) -> datetime | None:
    """Return POSIX seconds as an aware UTC datetime; None stays None."""
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


def storable(text: str) -> str:
    r"""Return text that every storage can keep: a lone surrogate or a NUL stands as its escape.

    >>> storable("a\0b"), storable("\ud800")
    ('a\\x00b', '\\ud800')
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def encode_json(field: str, value: object, error: type[InvalidValue] = InvalidValue) -> bytes:
    r"""Encode plain data as JSON. What JSON can't carry back unchanged is refused: NaN, dates, sets, bytes, objects.

    A tuple becomes a list, as in every JSON library.

    >>> encode_json("args", [2**53 + 1, 0.1 + 0.2, "ü", [], {}])
    b'[9007199254740993,0.30000000000000004,"\xc3\xbc",[],{}]'
    >>> encode_json("args", [1, {"x": float("nan")}])
    Traceback (most recent call last):
    qml_nb.errors.InvalidValue: expected args[1]['x'] to be a finite number, got nan; JSON has no NaN or infinity, send None or text
    """
    if not _is_plain(value, 0):
        raise _fault(field, value, 0, error)
    try:
        return _encode(value)
    except UnicodeEncodeError:
        raise error(field, "to be valid Unicode", value, "remove the lone surrogate") from None
    except (ValueError, OverflowError) as problem:
        raise error(field, "to be JSON", value, str(problem)) from None


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is float:
        return isfinite(value)
    if depth >= MAX_DEPTH:
        return False
    if kind is list or kind is tuple:
        return all(type(item) in _ATOMS or _is_plain(item, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str and _is_plain(item, depth + 1) for key, item in value.items())
    return False


def _fault(path: str, value: Any, depth: int, error: type[InvalidValue]) -> InvalidValue:
    """Find the first part that is not plain, to name it. Only on the way to an error, so it may be slow."""
    kind = type(value)
    if kind is float:
        return error(path, "to be a finite number", value, "JSON has no NaN or infinity, send None or text")
    if kind not in (list, tuple, dict):
        what = f"convert the {kind.__module__}.{kind.__qualname__} first" if kind.__module__ != "builtins" else ""
        expected = "to be plain JSON data (None, bool, int, float, str, list, dict)"
        return error(path, expected, value, what or f"convert the {kind.__name__} first")
    if depth >= MAX_DEPTH:
        path = path[:40] + "…"
        return error(
            path, f"to nest at most {MAX_DEPTH} levels", type(value).__name__, "flatten it, or send a reference"
        )
    if kind is dict:
        key = next((key for key in value if type(key) is not str), None)
        if key is not None or None in value:
            return error(path, "to have text keys", key, "JSON has no other keys, use str(key)")
        items = [(f"{path}[{key!r}]", item) for key, item in value.items()]
    else:
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return next(_fault(name, item, depth + 1, error) for name, item in items if not _is_plain(item, depth + 1))
