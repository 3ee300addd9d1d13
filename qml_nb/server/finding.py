"""A registry by the name that people write for it on a command line: `module:registry`."""

from __future__ import annotations

import os
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING

from qml_nb.errors import InvalidValue
from qml_nb.server.registry import WorkerRegistry

if TYPE_CHECKING:
    from types import ModuleType


def find_registry(name: str) -> WorkerRegistry:
    """Import a module, and return the registry in it: "app.tasks:registry", or "app.tasks" if it has one only.

    Raises:
        InvalidValue: there is no such module, no such registry, or no task in it. What the module itself raises while
            it is imported comes as it is.
    """
    module_name, _, path = name.partition(":")
    module = _module(module_name)
    path = path or _only_one(module, name)
    found = _attribute(module, path)
    shown = f"{module_name}:{path}"
    if not isinstance(found, WorkerRegistry):
        raise InvalidValue(shown, "to be a WorkerRegistry", found, _there_are(module))
    if not found:
        remedy = f"register them with @registry.task, and import in {module_name} the modules that do"
        raise InvalidValue(shown, "to have tasks", found, remedy)
    return found


def _module(name: str) -> ModuleType:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        path = name.removesuffix(".py").replace(os.sep, ".").strip(".")
        raise InvalidValue("registry", "to begin with a module", name, f"write {path or 'app'}:registry")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # something that it imports
            raise
        where = f"there is none below {os.getcwd()}, nor among this Python's packages"
        raise InvalidValue("registry", "to begin with a module", error.name, where) from None


def _attribute(module: ModuleType, path: str) -> object:
    try:
        return reduce(getattr, path.split("."), module)
    except AttributeError:
        raise InvalidValue("registry", f"to be in {module.__name__}", path, _there_are(module)) from None


def _only_one(module: ModuleType, name: str) -> str:
    names = _registries(module)
    if len({id(registry) for registry in names.values()}) == 1:
        return next(iter(names))
    raise InvalidValue("registry", f"to say which one of {module.__name__}", name, _there_are(module))


def _there_are(module: ModuleType) -> str:
    names = [f"{module.__name__}:{name}" for name in _registries(module)]
    return f"there is {', '.join(names)}" if names else f"{module.__name__} has no WorkerRegistry"


def _registries(module: ModuleType) -> dict[str, WorkerRegistry]:
    return {name: value for name, value in vars(module).items() if isinstance(value, WorkerRegistry)}
