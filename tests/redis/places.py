"""Places where no server is, or where one hides: a port that takes no connection, one that speaks TLS, a sentinel."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from qml_nb.servers import LocalServers
from qml_nb.servers.redis import find_redis
from tests.servers.asking import ask, until

SERVICE = "the primary"


@contextmanager
def port_without_answer() -> Iterator[int]:
    """A port whose queue of connections is full, so that the system leaves further ones without an answer."""
    with ExitStack() as stack, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def free_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def certificate(directory: Path, name: str = "IP:127.0.0.1") -> Path:
    """Make a certificate that is its own CA, with its key in the same file."""
    path = directory / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", f"subjectAltName={name}", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    path.write_bytes((directory / "certificate.pem").read_bytes() + (directory / "key.pem").read_bytes())
    return path


@asynccontextmanager
async def speaking_tls(port: int, pem: Path) -> AsyncIterator[int]:
    """Stand in front of a server whose build has no TLS, and speak it for that server; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    opened: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, from_server = await asyncio.open_connection("127.0.0.1", port)
        opened.extend((writer, from_server))
        await asyncio.gather(pass_on(reader, from_server), pass_on(to_server, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in opened:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


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
