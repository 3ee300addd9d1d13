"""A child process goes on where its parent was, with a loop thread of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os
from qml_nb import Job, MemoryStorage

storage = MemoryStorage()
storage.sync.enqueue(Job("before"))
child = os.fork()
storage.sync.enqueue(Job("after"))
waiting = storage.sync.get_job_counts()["enqueued"]
if not child:
    os._exit(waiting)
print(waiting, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_the_sync_face_works_in_a_forked_child_whose_parent_used_it() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.stdout.split(), done.stderr) == (["2", "2"], "")
