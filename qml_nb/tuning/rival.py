"""Other queues, each measured in a process of its own, so that nothing of it is left in this one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec


def rival_rate(package: str, module: str, how: str, url: str, jobs: int) -> tuple[str, float] | None:
    """Run `python -m MODULE URL JOBS`, which prints jobs a second.

    Returns what was measured, with its version and `how`, and the rate; None if the package is not installed.
    """
    if find_spec(package) is None:
        return None
    command = [sys.executable, "-m", module, url, str(jobs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return f"{package} {version(package)}, {how}", float(done.stdout)
