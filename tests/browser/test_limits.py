"""The command that prints the figures gets those of the page from a real one."""

import pytest

from qml_nb.cli import bench

pytestmark = pytest.mark.browser


@pytest.mark.timeout(180)
def test_limits_measures_kernel_latency_and_drawn_frames_in_a_real_page(monkeypatch, folder):
    monkeypatch.setattr(bench, "_FRAME_SECONDS", 4)
    kernel, frame = bench._page_figures()
    assert (kernel.goal, frame.goal) == (50.0, 200.0)
    assert 0 < kernel.value <= kernel.high
    assert 0 < frame.low <= frame.value <= frame.high
