"""Real throw-away servers for a laptop, a test or a notebook, from pip or from PATH."""

from qml_nb.servers.local import LocalServers
from qml_nb.servers.process import LocalServer

__all__ = ["LocalServer", "LocalServers"]
