"""A notebook in a page, as the tests see and use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

from qml_widgets.lab import command, open_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from playwright.sync_api import Locator, Page

PATIENCE = 60_000
"""Milliseconds that a page may take for anything: machines differ."""
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
_NOT_OURS = "Could not restore the debugger state"  # JupyterLab's own, now and then, when a kernel restarts
METADATA = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
_CURVE = "document.querySelector('.qml-room .js-plotly-plot')?.data.find((curve) => curve.name === '{}')?.y.at(-1)"


class Notebook:
    """A page of JupyterLab with one notebook. Waits of its methods end with an error after a minute."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        """What the page's console complained about, and errors that nobody caught."""
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._note(str(error)))

    @classmethod
    def open(cls, page: Page, url: str, folder: Path, name: str, cells: Sequence[str]) -> Self:
        """Open a notebook of the folder; with cells, write it first."""
        if cells:
            write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=METADATA), folder / name)
        notebook = cls(page)
        open_notebook(page, url.format(name))
        return notebook

    def _note(self, error: str) -> None:
        if _NOT_OURS not in error:
            self.errors.append(error)

    def close(self) -> None:
        """End the kernel, and close the page."""
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()

    def run_all(self) -> None:
        """Begin to run all cells."""
        command(self.page, "notebook:run-all-cells")

    def run(self, cell: int) -> None:
        """Begin to run a code cell, counted from 0."""
        self.page.evaluate(f"jupyterapp.shell.currentWidget.content.activeCellIndex = {cell}")
        command(self.page, "notebook:run-cell")

    def wait(self, expression: str, value: Any = None) -> None:
        """Wait until a JavaScript expression holds."""
        self.page.wait_for_function(expression, arg=value, timeout=PATIENCE)

    def wait_for_status(self, status: str) -> None:
        """Wait until the kernel is "idle" or "busy"."""
        self.wait(f"{KERNEL}.status === '{status}'")

    def wait_for_curve(self, name: str, condition: str) -> None:
        """Wait until the newest value of a curve in the picture is as the condition says, such as "> 100"."""
        self.wait(f"{_CURVE.format(name)} {condition}")

    def curve(self, name: str) -> float:
        """Return the newest value of a curve in the picture."""
        return float(self.page.evaluate(_CURVE.format(name)))

    def room(self, selector: str) -> Locator:
        """Find something in the control room."""
        return self.page.locator(f".qml-room {selector}")

    def press(self, button: str) -> None:
        """Press a button of the control room."""
        self.page.get_by_role("button", name=button, exact=True).click()

    def prompt(self, cell: int) -> str:
        """Return what stands before a code cell: "[*]:" while it runs."""
        return self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-InputArea-prompt").inner_text()

    def output(self, cell: int) -> str:
        """Return the text of a code cell's output, once there is some."""
        outputs = self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")
        outputs.first.wait_for()
        return outputs.first.inner_text()
