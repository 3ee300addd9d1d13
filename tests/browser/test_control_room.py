"""The control room in JupyterLab, in a real browser: what a person does and sees."""

from __future__ import annotations

import os
import subprocess
import sys
from socket import create_connection
from time import monotonic, sleep
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from qml_nb import JobState, Storage, open_storage
from qml_nb.servers import LocalServers
from qml_nb.storage.sync import run_sync
from tests.browser.notebook import KERNEL, Notebook
from tests.widgets.page import until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.browser.conftest import Open

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ROOM = "from qml_widgets import ControlRoom\nroom = ControlRoom()\nroom"
THREADS = "import os, threading\nos.getpid(), sorted(t.name for t in threading.enumerate())"


def stored(url: str) -> Mapping[JobState, int]:
    """How many jobs a storage has by state, asked for from another process than the room's."""
    storage: Storage = run_sync(open_storage(url))
    counts: Mapping[JobState, int] = storage.sync.get_job_counts()
    storage.sync.close()
    return counts


def is_listening(url: str) -> bool:
    address = urlsplit(url)
    try:
        create_connection((address.hostname, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def with_room(open_in_lab: Open, *cells: str) -> Notebook:
    notebook = open_in_lab("", ROOM, *cells)
    notebook.run(0)
    notebook.room(".js-plotly-plot .main-svg").first.wait_for()
    return notebook


def test_the_notebook_runs_and_then_the_mouse_starts_and_stops_the_room(open_in_lab: Open) -> None:
    notebook = open_in_lab("00_control_room.ipynb")
    notebook.run_all()
    notebook.page.get_by_text("The longest phase is").wait_for()
    notebook.wait_for_curve("done", "=== 0")
    assert notebook.room(".qml-state").inner_text() == "stopped"
    notebook.press("Start")
    notebook.wait_for_curve("done", "> 100")
    assert notebook.room(".qml-state").inner_text() == "running"
    assert "jobs/s in" in notebook.room(".qml-summary").inner_text()
    notebook.press("Stop")
    notebook.wait_for_curve("done", "=== 0")
    notebook.wait_for_curve("busy", "=== 0")
    assert not notebook.page.locator(".jp-OutputArea-output[data-mime-type*='error']").count()


def test_stop_works_and_the_pictures_go_on_while_a_cell_runs(open_in_lab: Open) -> None:
    # The room tells its page of the new rate while the cell runs: the kernel must not take that for the place to answer.
    notebook = with_room(open_in_lab, "import time; room.rate = 301; time.sleep(60)")
    notebook.press("Start")
    notebook.wait_for_curve("done", "> 100")
    notebook.run(1)
    notebook.page.get_by_text("[*]:").wait_for()
    notebook.wait("[...document.querySelectorAll('.qml-room input')].some((input) => input.value === '301')")
    before = notebook.page.evaluate("document.querySelector('.js-plotly-plot').data[0].x.at(-1)")
    notebook.wait("(before) => document.querySelector('.js-plotly-plot').data[0].x.at(-1) > before + 1", before)
    notebook.press("Stop")
    notebook.wait_for_curve("done", "=== 0")
    assert notebook.prompt(1) == "[*]:"
    notebook.page.evaluate(f"{KERNEL}.interrupt()")
    notebook.page.get_by_text("KeyboardInterrupt").first.wait_for()


def test_everything_can_be_done_from_the_keyboard(open_in_lab: Open) -> None:
    notebook = with_room(open_in_lab, "1")
    keyboard = notebook.page.keyboard
    active = notebook.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex")
    notebook.page.get_by_label("Rate", exact=True).focus()
    keyboard.press("ArrowRight")  # an arrow moves the slider, not the notebook's selection
    notebook.wait("document.querySelectorAll('.qml-room input[type=number]')[1].value > 300")
    keyboard.press("Tab")
    keyboard.type("50")
    keyboard.press("Enter")
    notebook.page.get_by_role("radio", name="queue wait").focus()
    keyboard.press("ArrowDown")
    notebook.page.locator(".qml-room .annotation-text", has_text="Slot wait").wait_for()
    notebook.page.get_by_role("button", name="Start", exact=True).focus()
    keyboard.press("Enter")
    notebook.wait_for_curve("in", "> 40")
    assert notebook.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex") == active
    assert 40 < notebook.curve("in") < 60


def test_no_control_is_without_a_name_and_hostile_text_is_text(open_in_lab: Open) -> None:
    notebook = with_room(open_in_lab, "room._obey({'do': '<img src=x class=hostile onerror=alert(1)>'})")
    names = notebook.page.evaluate(
        "[...document.querySelectorAll('.qml-room :is(input, select, button)')]"
        ".map((node) => node.ariaLabel || node.labels?.[0]?.textContent || node.textContent)"
    )
    assert len(names) >= 17
    assert all(names)
    notebook.run(1)
    notebook.room(".qml-troubles").get_by_text("<img src=x class=hostile").wait_for()
    assert notebook.page.locator(".hostile").count() == 0


def test_a_room_out_of_sight_is_not_drawn_until_it_is_seen_again(open_in_lab: Open) -> None:
    notebook = with_room(open_in_lab, *["print('\\n' * 60)"] * 2, "room.start()")
    notebook.run_all()
    notebook.wait_for_curve("done", "> 100")
    notebook.page.locator(".jp-CodeCell").nth(3).scroll_into_view_if_needed()
    sleep(1.5)
    pictures = "document.querySelector('.js-plotly-plot')?.data[0].x.at(-1)"
    before = notebook.page.evaluate(pictures)
    sleep(1.5)
    assert notebook.page.evaluate(pictures) == before
    notebook.page.evaluate("document.querySelector('.qml-room').scrollIntoView()")
    notebook.wait(f"(before) => {pictures} > before + 1", before)


def test_after_a_restart_the_kernel_is_a_new_one_and_the_last_picture_stays(open_in_lab: Open) -> None:
    notebook = with_room(open_in_lab, THREADS)
    notebook.press("Start")
    notebook.wait_for_curve("done", "> 100")
    notebook.run(1)
    before = notebook.output(1)
    assert "control-room" in before
    process = int(before.strip("(").partition(",")[0])
    notebook.page.evaluate(f"{KERNEL}.restart()")
    notebook.page.get_by_text("The kernel is gone").wait_for()
    assert notebook.room("button:enabled").count() == 0
    assert notebook.curve("done") > 100
    end = monotonic() + 30
    while os.path.exists(f"/proc/{process}") and monotonic() < end:
        sleep(0.1)
    assert not os.path.exists(f"/proc/{process}")
    notebook.wait_for_status("idle")
    notebook.run(1)
    notebook.wait(f"!document.querySelectorAll('.jp-CodeCell')[1].textContent.includes('({process},')")
    assert "control-room" not in notebook.output(1)


def test_a_notebook_that_papermill_ran_shows_the_last_picture_without_a_kernel(open_in_lab: Open, folder: Path) -> None:
    run = [sys.executable, "-m", "papermill", "00_control_room.ipynb", "ran.ipynb", "-k", "python3"]
    subprocess.run(run, cwd=folder, check=True, capture_output=True)
    notebook = open_in_lab("ran.ipynb")
    notebook.page.evaluate("for (const cell of jupyterapp.shell.currentWidget.content.model.cells) cell.trusted = true")
    notebook.room(".js-plotly-plot .main-svg").first.wait_for()
    notebook.page.get_by_text("The kernel is gone").wait_for()
    assert notebook.curve("done") == 0
    assert notebook.page.evaluate("Math.max(...document.querySelector('.js-plotly-plot').data[1].y)") > 100


@pytest.mark.parametrize(
    ("local", "address"),
    [("local Redis", "redis://127.0.0.1:"), ("local PostgreSQL", "postgresql://postgres@127.0.0.1:")],
)
def test_one_click_takes_the_room_to_a_server_of_its_own(open_in_lab: Open, local: str, address: str) -> None:
    notebook = open_in_lab("00_control_room.ipynb")
    notebook.run(1)  # the parameters; cells of text count too
    notebook.run(3)
    notebook.room(".js-plotly-plot .main-svg").first.wait_for()
    where = notebook.room(".qml-where").first
    assert "in this kernel" in where.inner_text()
    notebook.press(local)
    notebook.room(".qml-where").get_by_text(address).wait_for()
    assert notebook.page.get_by_role("button", name=local, pressed=True).count() == 1
    notebook.press("Start")
    notebook.wait_for_curve("done", "> 200")
    succeeded = notebook.room("[data-state=succeeded] .qml-many")
    notebook.wait(
        "Number(document.querySelector('[data-state=succeeded] .qml-many').textContent.replace(',', '')) > 300"
    )
    notebook.press("Stop")
    notebook.wait_for_curve("busy", "=== 0")
    notebook.wait_for_curve("done", "=== 0")
    url = where.inner_text()
    assert succeeded.inner_text().replace(",", "") == str(stored(url)[JobState.SUCCEEDED])
    assert not notebook.room(".qml-troubles p").count()
    notebook.page.evaluate(f"{KERNEL}.restart()")
    until(lambda: not is_listening(url), "the end of the server")
    notebook.wait_for_status("idle")


def test_a_url_is_typed_and_what_is_wrong_with_it_is_said(open_in_lab: Open) -> None:
    notebook = with_room(open_in_lab, "1")
    keyboard = notebook.page.keyboard
    other = notebook.page.get_by_role("button", name="URL…")
    other.focus()
    keyboard.press("Enter")
    keyboard.type("redis://:hush@127.0.0.1:1/0")  # the line has the focus
    keyboard.press("Enter")
    alert = notebook.room("[role=alert]").get_by_text("No connection to Redis at 127.0.0.1:1")
    alert.wait_for()
    assert "stays with memory" in alert.inner_text()
    assert "hush" not in notebook.page.inner_text(".qml-room")
    with LocalServers() as servers:
        notebook.page.get_by_label("storage URL").fill(servers.redis())
        notebook.press("Connect")
        notebook.page.get_by_role("button", name="URL…", pressed=True).wait_for()
        assert not notebook.page.get_by_label("storage URL").is_visible()
        assert not notebook.page.get_by_label("storage URL").input_value()
        notebook.press("Start")
        notebook.wait_for_curve("done", "> 200")
    notebook.room(".qml-state").get_by_text("storage away").wait_for()
    notebook.press("memory")
    notebook.wait_for_curve("done", "> 200")
    notebook.press("Stop")
