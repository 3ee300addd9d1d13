"""The notebooks as they lie in git, and what papermill makes of them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ALL = sorted(path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_has_no_outputs_in_git(path: Path) -> None:
    verified = run("nbstripout", "--verify", str(path))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_has_one_title_short_cells_and_the_kernel_of_everybody(path: Path) -> None:
    notebook = read(path)
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert sum(line.startswith("# ") for line in lines) == 1
    assert max(cell.source.count("\n") + 1 for cell in notebook.cells if cell.cell_type == "code") <= 12
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The control room's notebook after papermill ran it, with parameters of its own."""
    output = tmp_path_factory.mktemp("papermill") / "control_room.ipynb"
    parameters = ["-p", "seconds", "2.0", "-p", "rate", "200.0", "-p", "workers", "3"]
    ended = run("papermill", str(NOTEBOOKS / "00_control_room.ipynb"), str(output), "-k", "python3", *parameters)
    assert ended.returncode == 0, ended.stderr
    return read(output)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_papermill_runs_the_control_room_without_errors_or_prints(executed: Any) -> None:
    assert {output.output_type for output in outputs(executed)} == {"execute_result"}


def test_the_room_is_in_the_output_with_its_parameters_and_a_steady_text(executed: Any) -> None:
    [room] = [output.data for output in outputs(executed) if VIEW in output.get("data", {})]
    assert room["text/plain"] == "ControlRoom(3 slots, 200 jobs/s, constant, sleep 10 ms, stopped)"


def test_the_last_picture_is_in_the_output(executed: Any) -> None:
    models = executed.metadata.widgets[WIDGETS]["state"]
    [chart] = [model for model in models.values() if "_widget_data" in model["state"]]
    done = next(place for place, trace in enumerate(chart["state"]["_widget_data"]) if trace["uid"] == "done")
    [curve] = [b["data"] for b in chart["buffers"] if b["path"] == ["_widget_data", done, "y", "buffer"]]
    rates = np.frombuffer(base64.b64decode(curve), np.float32)
    assert max(rates) > 100
    assert rates[-1] == 0


def test_the_last_numbers_are_in_the_output(executed: Any) -> None:
    facts = [model["state"].get("facts", {}) for model in executed.metadata.widgets[WIDGETS]["state"].values()]
    [counts] = [dict(fact["counts"]) for fact in facts if "counts" in fact]
    assert int(counts["succeeded"]) > 200
    assert counts["enqueued"] == counts["processing"] == "0"


def test_each_array_in_the_output_has_its_place(executed: Any) -> None:
    for model in executed.metadata.widgets[WIDGETS]["state"].values():
        for buffer in model.get("buffers", ()):
            place = model["state"]
            for step in buffer["path"][:-1]:
                place = place[step]  # JupyterLab shows none of the widgets if one of these fails
            assert isinstance(place, dict)


def test_the_output_is_plain_json_that_any_viewer_reads(executed: Any) -> None:
    nbformat.validate(executed)
    assert json.loads(nbformat.writes(executed))
