"""Synthetic load: tasks that cost what you say, jobs that arrive when you say."""

from qml_nb.load.generator import LoadGenerator
from qml_nb.load.tasks import Mix, synthetic_tasks

__all__ = ["LoadGenerator", "Mix", "synthetic_tasks"]
