"""A JupyterLab of one's own and a browser on it: for what can only be seen or measured in a page."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (
    "--no-sandbox",  # in containers there is none to be had; the only page opened is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_START: Final = 60.0
_QUIET: Final = '{"fetchNews": "false", "checkForUpdates": false}'
_IDLE: Final = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.status === "idle";
}"""


def missing() -> list[str]:
    """Return what is not installed of what a page needs: jupyterlab, playwright, a browser."""
    packages = [name for name in ("jupyterlab", "playwright") if find_spec(name) is None]
    return packages + ([] if find_browser() else [" or ".join(BROWSERS)])


def find_browser() -> str | None:
    """Return the path of the first browser of `BROWSERS` on PATH."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def lab_server(folder: Path) -> Iterator[str]:
    """Run JupyterLab on a folder, on a free port of this machine, with settings of its own; yield its URL and token.

    The URL is that of the folder's tree with `{}` for a notebook's path. Server and kernels end with the block.
    """
    token, port = secrets.token_hex(16), _free_port()
    with TemporaryDirectory(ignore_cleanup_errors=True) as home, Path(home, "log").open("w") as log:
        server = subprocess.Popen(_command(folder, port, token), env=_environment(Path(home)), stdout=log, stderr=log)
        try:
            _await_answer(server, port, token, Path(home, "log"))
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}"
        finally:
            server.terminate()  # the server then shuts its kernels down
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextmanager
def browser_window(width: int = 1280, height: int = 800) -> Iterator[BrowserContext]:
    """Open a headless browser; its pages share what they loaded."""
    from playwright.sync_api import sync_playwright  # comes with the test extra

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=_FLAGS)
        try:
            yield browser.new_context(viewport={"width": width, "height": height})
        finally:
            browser.close()


def open_notebook(page: Page, url: str, timeout: float = 60.0) -> None:
    """Open a notebook, and wait until its kernel is idle."""
    page.goto(url)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=timeout * 1e3)
    page.wait_for_function(_IDLE, timeout=timeout * 1e3)


def command(page: Page, name: str, **arguments: str) -> None:
    """Have JupyterLab carry out a command, as "notebook:run-all-cells"; does not wait for what cells do."""
    page.evaluate("([name, arguments]) => { jupyterapp.commands.execute(name, arguments) }", [name, arguments])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(folder: Path, port: int, token: str) -> list[str]:
    arguments = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--expose-app-in-browser",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*arguments, "--allow-root"] if is_root else arguments


def _environment(home: Path) -> dict[str, str]:
    """Return this process's environment, with every place where Jupyter reads or leaves something moved to `home`."""
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(_QUIET)
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return os.environ | {name: str(home / place) for name, place in places.items()}


def _await_answer(server: subprocess.Popen[bytes], port: int, token: str, log: Path) -> None:
    end = monotonic() + _START
    while monotonic() < end and server.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", f"/api?token={token}")
            if connection.getresponse().status == 200:
                return
        except OSError:
            sleep(0.1)
        finally:
            connection.close()
    raise TimeoutError(f"JupyterLab did not answer within {_START:g} s; its log ends with:\n{log.read_text()[-2000:]}")
