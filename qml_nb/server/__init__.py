"""Servers, and pools of them."""

from qml_nb.server.pool import WorkerPool
from qml_nb.server.registry import WorkerRegistry
from qml_nb.server.server import BackgroundJobServer

__all__ = ["BackgroundJobServer", "WorkerPool", "WorkerRegistry"]
