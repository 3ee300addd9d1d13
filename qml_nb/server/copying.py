"""Functions and what they need, as bytes for another process: by cloudpickle, and with the names of their files.

What can be imported by name goes as its name, all else whole. Only what this process made itself is ever read back.
"""

from __future__ import annotations

from collections import ChainMap
from io import BytesIO
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar

from cloudpickle import Pickler, loads

from qml_nb.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["loads", "packed", "unfit"]

_NO_COPY = "it may use no locks, connections or storages of this process: let it make or import its own"


def packed(value: object) -> bytes:
    """Return the value as bytes for `loads`. Raises whatever it is that can't be packed."""
    with BytesIO() as stream:
        _Pickler(stream).dump(value)
        return stream.getvalue()


def unfit(name: str, value: object, error: Exception) -> InvalidValue:
    """Make the error that says what can't be packed, and why."""
    remedy = f"{type(error).__name__}: {error}; {_NO_COPY}"
    return InvalidValue(name, "to be something that another process can get a copy of", value, remedy)


def _code(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """Keep the name of the file, which cloudpickle drops: an error's traceback shows it, and the line in it."""
    make, arguments = Pickler.dispatch_table[CodeType](code)
    return _code_in_file, (code.co_filename, make, arguments)


def _code_in_file(name: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=name)


class _Pickler(Pickler):
    dispatch_table: ClassVar[ChainMap[type, Any]] = ChainMap({CodeType: _code}, Pickler.dispatch_table)
