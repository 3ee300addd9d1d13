"""Servers, and pools of them."""

from qml_nb.server.context import JobContext, job_context
from qml_nb.server.pool import WorkerPool
from qml_nb.server.registry import WorkerRegistry
from qml_nb.server.server import BackgroundJobServer

__all__ = ["BackgroundJobServer", "JobContext", "WorkerPool", "WorkerRegistry", "job_context"]
