"""What the tests in a browser start from: one JupyterLab and one headless browser for all of them, a page a test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qml_widgets.lab import browser_window, lab_server, missing
from tests.browser.notebook import Notebook

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
Open = Callable[..., Notebook]
"""Opens a notebook: one of `notebooks/` by name, or a new one with the cells given."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebooks, which the tests may run and write."""
    lacking = missing()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(lacking)}")
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    return Path(shutil.copytree(NOTEBOOKS, tmp_path_factory.mktemp("lab") / "notebooks"))


@pytest.fixture(scope="module")  # not session: an open Playwright keeps an event loop running in this very thread
def lab(folder: Path) -> Iterator[tuple[str, BrowserContext]]:
    """The URL of a JupyterLab, and the browser for it."""
    with ExitStack() as stack:
        yield stack.enter_context(lab_server(folder)), stack.enter_context(browser_window())


@pytest.fixture
def open_in_lab(lab: tuple[str, BrowserContext], folder: Path) -> Iterator[Open]:
    """Opens notebooks in pages of their own; after the test the pages' consoles must have been free of errors."""
    url, window = lab
    opened: list[Notebook] = []
    numbers = count(len(list(folder.iterdir())))

    def open_notebook(name: str = "", *cells: str) -> Notebook:
        page = window.new_page()
        opened.append(Notebook.open(page, url, folder, name or f"test{next(numbers)}.ipynb", cells))
        return opened[-1]

    yield open_notebook
    for notebook in opened:
        notebook.close()
    assert [error for notebook in opened for error in notebook.errors] == []
