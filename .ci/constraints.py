"""Print the pins of constraints.txt: what each Python resolves for this project, merged under environment markers.

Usage: python .ci/constraints.py python3.11 python3.12 python3.13 > constraints.txt
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import groupby
from pathlib import Path

EXTRAS = "lab,servers,fast,dask,metrics,tracing,test"
HEADER = """\
# One known-good set of packages for Python 3.11, 3.12 and 3.13, so that `make lab` and `make test` install the same
# everywhere. Resolved on Linux: what only Windows or macOS needs is left to pip. Not edited by hand; regenerate with
#     make constraints
# (PYTHONS="path/to/python3.11 path/to/python3.12 path/to/python3.13" where these are not on PATH).
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Return the Python's `major.minor`, and name → version of all that the project needs there; installs nothing."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        [inner] = [p for p in (Path(folder, "bin/python"), Path(folder, "Scripts/python.exe")) if p.exists()]
        report = Path(folder, "report.json")
        command = [inner, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed", "--report", report]
        subprocess.run([*command, f".[{EXTRAS}]"], check=True, stdout=sys.stderr)
        found = json.loads(report.read_text())
    packages = (item["metadata"] for item in found["install"])
    pins = {p["name"].lower().replace("_", "-").replace(".", "-"): p["version"] for p in packages}
    del pins["qml-nb"]
    return ".".join(found["environment"]["python_version"].split(".")[:2]), pins


def lines(found: dict[str, dict[str, str]]) -> list[str]:
    """Return one line a package, or one a group of Pythons where these differ."""
    versions: dict[str, dict[str, str]] = defaultdict(dict)
    for python, pins in found.items():
        for name, version in pins.items():
            versions[name][python] = version
    out = []
    for name, by_python in sorted(versions.items()):
        if len(set(by_python.values())) == 1:  # a Python that does not need the package is not harmed by its pin
            out.append(f"{name}=={next(iter(by_python.values()))}")
            continue
        for version, group in groupby(sorted(by_python, key=lambda p: int(p[2:])), key=by_python.__getitem__):
            marker = " or ".join(f'python_version == "{python}"' for python in group)
            out.append(f"{name}=={version}; {marker}")
    return out


if __name__ == "__main__":
    print(HEADER + "\n".join(lines(dict(map(resolve, sys.argv[1:])))))
