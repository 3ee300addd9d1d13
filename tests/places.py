"""Places where no server is, or where one hides: a port that takes no connection, one that is silent, one that speaks TLS."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path


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


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
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


Greet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def as_postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agree to TLS as a PostgreSQL server does."""
    length_and_code = await reader.readexactly(8)
    assert length_and_code[4:] == bytes.fromhex("04d2162f"), "the client did not ask for TLS"
    writer.write(b"S")


@asynccontextmanager
async def speaking_tls(port: int, pem: Path, greet: Greet | None = None) -> AsyncIterator[int]:
    """Stand in front of a server whose build has no TLS, and speak it for that server; yields the port.

    What is said before TLS begins is up to `greet`.
    """
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
        if greet is not None:
            try:
                await greet(reader, writer)
                await writer.start_tls(context)
            except (AssertionError, OSError, EOFError):
                writer.close()
                return
        to_server, from_server = await asyncio.open_connection("127.0.0.1", port)
        opened.extend((writer, from_server))
        await asyncio.gather(pass_on(reader, from_server), pass_on(to_server, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if greet else context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in opened:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
