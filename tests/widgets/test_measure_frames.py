"""The arithmetic of the frame measurement, and what it says where it can't run."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from qml_nb.load.tasks import burn
from qml_widgets import measure_frames
from qml_widgets.measure_frames import Lateness, ages, main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_job_counts_once_however_many_pictures_were_left_out() -> None:
    every = ages([(turn / 10, turn / 10 + 0.03) for turn in range(11)])
    half = ages([(turn / 10, turn / 10 + 0.03) for turn in range(0, 11, 2)])
    assert len(every) == len(half)
    assert max(every) < 0.13 < max(half) < 0.23


def test_the_wait_for_the_snapshot_is_part_of_the_age() -> None:
    spread = ages([(0.0, 0.0), (0.1, 0.1)])  # drawn at the instant of the snapshot
    assert 0.049 < sum(spread) / len(spread) < 0.051


def test_it_says_what_is_not_installed_and_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_frames, "missing", lambda: ["jupyterlab", "playwright"])
    assert main(["--json"]) == 3
    assert "jupyterlab, playwright" in capsys.readouterr().err


async def test_a_loop_that_is_kept_busy_rings_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure_frames, "WARM_UP", 0.0)
    lateness = Lateness()
    for _ in range(4):
        await asyncio.sleep(0.03)
    burn(0.1)
    await asyncio.sleep(0.03)
    lateness.write(str(tmp_path / "late.json"))
    seconds = json.loads((tmp_path / "late.json").read_text())
    assert max(seconds) > 0.05
    assert min(seconds) < 0.05
