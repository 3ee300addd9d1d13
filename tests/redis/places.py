"""Sentinels, which say where a server is."""

from contextlib import suppress

from qml_nb.servers import LocalServers
from qml_nb.servers.redis import find_redis
from tests.places import free_port
from tests.servers.asking import ask, until

SERVICE = "the primary"


def start_sentinel(servers: LocalServers, primary: str, *replicas: str) -> int:
    """Start a sentinel that watches a primary as `SERVICE`; returns its port once it knows all of them."""
    port = free_port()
    directory = servers.directory / f"sentinel-{port}"
    directory.mkdir()
    monitored = servers.server(primary).port
    settings = [f"port {port}", "bind 127.0.0.1", f'sentinel monitor "{SERVICE}" 127.0.0.1 {monitored} 1']
    settings += [f'sentinel down-after-milliseconds "{SERVICE}" 500', f'sentinel failover-timeout "{SERVICE}" 3000']
    (directory / "sentinel.conf").write_text("\n".join(settings) + "\n")
    servers._children.start([find_redis(), "sentinel.conf", "--sentinel"], directory, directory / "server.log")
    address = f"redis://127.0.0.1:{port}"

    def knows_all() -> bool:
        with suppress(OSError, Exception):
            return len(ask(address, "SENTINEL REPLICAS", SERVICE)) == len(replicas)
        return False

    until(knows_all)
    return port
