"""TLS: a certificate must be trusted, and is when its CA is named."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qml_nb.errors import StorageUnavailable
from qml_nb.servers import LocalServers
from qml_nb.storage import open_storage
from tests.places import certificate, speaking_tls
from tests.verbs import exercise


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that nobody trusts yet."""
    return certificate(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def tls_port(servers: LocalServers, url: str, pem: Path) -> AsyncIterator[int]:
    """A port where a real server is reached over TLS."""
    async with speaking_tls(servers.server(url).port, pem) as port:
        yield port


async def test_a_certificate_whose_ca_is_named_is_trusted(connect: Any, tls_port: int, pem: Path) -> None:
    await exercise(await connect(f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={pem}"))


async def test_tls_may_stand_beside_the_url(connect: Any, tls_port: int, pem: Path) -> None:
    await exercise(await connect(f"redis://127.0.0.1:{tls_port}?ssl_ca_certs={pem}", tls=True))


async def test_tls_can_be_taken_from_a_url(connect: Any, url: str) -> None:
    await exercise(await connect(url.replace("redis://", "rediss://"), tls=False))


async def test_a_certificate_that_nobody_vouches_for_is_refused(tls_port: int) -> None:
    said = r"Redis at 127\.0\.0\.1:\d+ has a certificate that is not trusted: .*; name its CA, as in \?ssl_ca_certs="

    with pytest.raises(StorageUnavailable, match=said):
        await open_storage(f"rediss://127.0.0.1:{tls_port}")


async def test_a_certificate_for_another_host_is_refused(servers: LocalServers, url: str, tmp_path: Path) -> None:
    other = certificate(tmp_path, "DNS:elsewhere.example")

    async with speaking_tls(servers.server(url).port, other) as port:
        with pytest.raises(StorageUnavailable, match=r"has a certificate that is not trusted: .*IP address mismatch"):
            await open_storage(f"rediss://127.0.0.1:{port}?ssl_ca_certs={other}")


async def test_without_tls_a_server_that_wants_it_is_not_reached(tls_port: int) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(StorageUnavailable, match="check the url"):
            await open_storage(f"redis://127.0.0.1:{tls_port}", command_timeout=1)


async def test_tls_to_a_server_without_it_says_so(url: str) -> None:
    with pytest.raises(StorageUnavailable, match="check the url, and that TLS is spoken there"):
        await open_storage(url.replace("redis://", "rediss://"), connection_timeout=0.3)
