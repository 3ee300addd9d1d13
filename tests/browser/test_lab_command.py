"""`qml-nb lab` prints an address that opens the notebook itself, wherever it lies."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy

ROOM = Path("notebooks/00_control_room.ipynb")


@contextmanager
def lab(*arguments: str) -> Iterator[str]:
    """Run `qml-nb lab`, and yield the address that it prints."""
    command = [sys.executable, "-c", "from qml_nb.cli import main; main()", "lab", "--no-browser", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield next(found[0] for line in process.stderr if (found := re.search(r"http://127\S+", line)))
        finally:
            process.kill()


def test_the_address_is_that_of_the_control_room() -> None:
    with lab("--port", "8971") as address:
        assert "/lab/tree/notebooks/00_control_room.ipynb?token=" in address


def test_a_notebook_elsewhere_is_opened_in_its_own_folder(tmp_path: Path) -> None:
    notebook = copy(ROOM, tmp_path / "my room.ipynb")

    with lab(str(notebook), "--port", "8971") as address:
        assert "/lab/tree/my%20room.ipynb?token=" in address
