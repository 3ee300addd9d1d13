"""The public names of the package are there, and are the ones of the guide."""

import inspect

import pytest

import qml_nb

GUIDE = ["Job", "MemoryStorage", "open_storage", "BackgroundJobServer", "ServerConfig", "WorkerRegistry", "RetryPolicy"]
GUIDE += ["QMLError"]


def test_every_public_name_exists() -> None:
    missing = [name for name in qml_nb.__all__ if not hasattr(qml_nb, name)]

    assert missing == []


def test_the_names_stand_once_and_in_order() -> None:
    assert list(qml_nb.__all__) == sorted(
        set(qml_nb.__all__), key=lambda name: (not name.isupper(), name[0].islower(), name)
    )


@pytest.mark.parametrize("name", GUIDE)
def test_the_names_of_the_guide_are_public(name: str) -> None:
    assert name in qml_nb.__all__


def test_every_public_class_and_function_says_what_it_is() -> None:
    public = [getattr(qml_nb, name) for name in qml_nb.__all__]

    assert all(inspect.getdoc(what) for what in public if inspect.isclass(what) or inspect.isfunction(what))


def test_what_is_public_is_in_all() -> None:
    public = {name for name, what in vars(qml_nb).items() if name[0] != "_" and not inspect.ismodule(what)}

    assert public == {name for name in qml_nb.__all__ if name[0] != "_"}
