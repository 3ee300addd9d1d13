"""`LocalServers`: the servers that one process, notebook or test started."""

from __future__ import annotations

import atexit
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import choice
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Self

from qml_nb.errors import InvalidValue, PortTaken
from qml_nb.servers.children import ChildProcesses
from qml_nb.servers.cluster import CLUSTER_OPTIONS, form_cluster
from qml_nb.servers.postgres import PostgresSettings
from qml_nb.servers.process import LocalServer
from qml_nb.servers.redis import RedisSettings
from qml_nb.validate import check_int

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from qml_nb.servers.process import Settings

# Below the ports that systems give to outgoing connections (Linux from 32768, others from 49152), one of which could
# else sit on a server's port when it restarts; and so that a cluster node's second port, 10000 above, is below too.
_PORTS = range(20_000, 22_768)
_ATTEMPTS = 20


class LocalServers:
    """Real servers on 127.0.0.1 that are gone, with their data, when this process is: by `stop` or `with`, or at its end.

    Any thread may call. After a fork they stay the parent's: in the child they count as stopped.

    >>> with LocalServers() as servers:
    ...     url = servers.redis()
    ...     servers.server(url).is_running
    True
    """

    def __init__(self) -> None:
        self.directory = Path(mkdtemp(prefix="qml-servers-"))
        """Where their data and logs are."""
        self._servers: dict[int, LocalServer] = {}
        self._nodes: tuple[LocalServer, ...] = ()
        self._children = ChildProcesses(self.directory)
        atexit.register(self.stop)

    def redis(
        self,
        *,
        durable: bool = False,
        port: int | None = None,
        password: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str:
        """Start a Redis server, and return its URL once it serves.

        Args:
            durable: whether each write is on disk before it is answered. Without, the data live as long as the process.
            port: the port, and with it the directory of an earlier server on that port; None for any free one.
            password: of the default user.
            options: further lines of redis.conf by name; quote values as there.
        """
        settings = RedisSettings(durable=durable, password=password, options=options)
        with self._children.in_use():
            return self._start(settings, port).url

    def postgres(
        self,
        *,
        durable: bool = False,
        port: int | None = None,
        password: str | None = None,
        options: Mapping[str, str] | None = None,
        programs: Path | str | None = None,
    ) -> str:
        """Start a PostgreSQL server, and return the URL of its database `postgres` once it serves.

        It refuses to run as root; for root it runs as `postgres`, or as `nobody` where there is no such account.

        Args:
            durable: whether each commit is on disk before it is answered. Without, the data live as long as the process.
            port: the port, and with it the data of an earlier server on that port; None for any free one.
            password: of the user `postgres`; None lets in everybody on this machine. Counts when the data are made.
            options: further settings by name, as in `{"max_connections": "500"}`.
            programs: the folder of `initdb` and `postgres`, for a certain version; None for the one that is found.
        """
        settings = PostgresSettings(durable=durable, password=password, options=options, programs=programs)
        with self._children.in_use():
            if settings.account:
                self.directory.chmod(
                    0o711
                )  # through, but not in: below lies the data directory, which is the account's
            return self._start(settings, port).url

    def redis_cluster(
        self,
        nodes: int = 3,
        *,
        replicas: int = 0,
        durable: bool = False,
        password: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str:
        """Start a Redis Cluster, and return its URL once every node serves: after 2 to 4 seconds.

        Args:
            nodes: how many primaries.
            replicas: how many replicas each primary has.
            durable: as for `redis`.
            password: of the default user, on each node.
            options: further lines of redis.conf, for each node.
        """
        check_int("nodes", nodes, 1, 100)
        check_int("replicas", replicas, 0, 10)
        settings = RedisSettings(durable=durable, password=password, options=CLUSTER_OPTIONS | dict(options or {}))
        with self._children.in_use(), ExitStack() as on_failure:
            started = [self._start_node(settings, on_failure) for _ in range(nodes * (1 + replicas))]
            form_cluster(started[:nodes], started[nodes:])
            on_failure.pop_all()
        self._nodes += tuple(started)
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in started)
        return f"redis+cluster://{settings.credentials}{addresses}"

    def server(self, url: str) -> LocalServer:
        """Return the handle of the server with that URL."""
        for server in list(self._servers.values()):
            if server.url == url:
                return server
        raise InvalidValue("url", "to be of a server that was started here", url, f"there is {self!r}")

    @property
    def nodes(self) -> tuple[LocalServer, ...]:
        """The nodes of the cluster: all primaries, then the replicas of the first, of the second and so on."""
        return self._nodes

    def stop(self) -> None:
        """Kill all servers and remove their data. Once is enough, more does no harm; nothing starts any more."""
        self._children.stop()
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        if self._children.stopped:
            return "LocalServers(stopped)"
        servers = (server.name + ("" if server.is_running else " ended") for server in list(self._servers.values()))
        return f"LocalServers({', '.join(servers) or 'none yet'})"

    def _start(self, settings: Settings, port: int | None = None) -> LocalServer:
        if port is not None:
            return self._start_on(check_int("port", port, 1, 65_535), settings)
        for _ in range(_ATTEMPTS):
            with suppress(PortTaken):
                return self._start_on(self._reserve_port(settings.kind), settings)
        return self._start_on(self._reserve_port(settings.kind), settings)

    def _start_on(self, port: int, settings: Settings) -> LocalServer:
        if port in self._servers and self._servers[port].is_running:
            raise InvalidValue("port", "to be free", port, f"{self._servers[port]!r} is there")
        directory = self.directory / f"{settings.kind}-{port}"
        directory.mkdir(mode=0o700, exist_ok=True)
        server = self._servers[port] = LocalServer(self._children, settings, port=port, directory=directory)
        return server

    def _reserve_port(self, kind: str) -> int:
        """Return a port that was not used here before; its directory, which one thread only can make, reserves it."""
        while True:
            port = choice(_PORTS)  # the system's randomness: two notebooks that seed `random` alike would meet
            if port in self._servers:  # of another kind
                continue
            with suppress(FileExistsError):
                (self.directory / f"{kind}-{port}").mkdir(mode=0o700)
                return port

    def _start_node(self, settings: Settings, on_failure: ExitStack) -> LocalServer:
        server = self._start(settings)
        on_failure.callback(server.kill)
        return server
