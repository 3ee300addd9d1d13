"""The command line, as a person types it: in a process of its own."""

import json
import subprocess
import sys

import pytest

CLI = [sys.executable, "-c", "from qml_nb.cli import main; main()"]


def qml_nb(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, cwd=cwd, timeout=100, check=False)


COMMANDS = [("work",), ("stats",), ("migrate",), ("lab",), ("bench", "limits"), ("bench", "rows")]


@pytest.mark.parametrize("arguments", [("--help",), *((*command, "--help") for command in COMMANDS)])
def test_help_says_what_a_command_does(arguments):
    done = qml_nb(*arguments)
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    assert f"qml-nb {' '.join(command)}" in qml_nb(*command, "--help").stdout


def test_lab_without_the_notebook_says_what_is_missing_and_what_to_do(tmp_path):
    done = qml_nb("lab", cwd=tmp_path)
    assert done.returncode == 2
    assert "00_control_room.ipynb" in done.stderr
    assert "name a notebook" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_storage_is_named(tmp_path):
    done = qml_nb("bench", "limits", "--storage", "oracle", cwd=tmp_path)
    assert done.returncode == 2
    assert "'oracle'" in done.stderr


def test_limits_measures_every_figure_beside_its_limit(monkeypatch, capsys):
    """With few jobs: this is about the rows, not about speed."""
    from qml_nb.tuning import memory_limits

    for name, few in (("JOBS", 300), ("PAIRS", 300), ("MILLION", 3_000), ("_FEW", 200)):
        monkeypatch.setattr(memory_limits, name, few)
    told = []
    figures = list(memory_limits.memory_figures(1, told.append))
    assert len(figures) == 14
    assert all(each.value > 0 for each in figures if each.unit in ("jobs/s", "µs"))  # so few jobs take no new page
    assert all(each.limit for each in figures if each.unit == "jobs/s")
    assert told[0] == "enqueue, one by one"


def test_limits_prints_json_on_request(monkeypatch):
    script = (
        "from qml_nb.tuning import memory_limits as m\n"
        "m.JOBS = m.PAIRS = 200; m.MILLION = 2_000; m._FEW = 200\n"
        "from qml_nb.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "bench", "limits", "--no-page", "--repeats", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert len(json.loads(done.stdout)["figures"]) == 14
