"""What a URL says of a Redis server, and what is said of one that says nothing."""

from pathlib import Path
from typing import Any

import pytest

from qml_nb.config import RedisConfig, without_password
from qml_nb.errors import InvalidValue
from qml_nb.storage import RedisStorage, open_storage
from qml_nb.storage.redis.address import read_address
from qml_nb.storage.redis.target import Target

HERE = str(Path(__file__))
SECRET = "geheim"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://h", {"host": "h", "port": 6379}),
        ("REDIS://h:1/0", {"host": "h", "port": 1, "db": 0}),
        ("redis://", {"host": "localhost", "port": 6379}),
        ("redis:///7", {"host": "localhost", "port": 6379, "db": 7}),
        ("redis://h/?db=7", {"host": "h", "port": 6379, "db": 7}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("redis://:p%40s%2Fs@h", {"host": "h", "port": 6379, "password": "p@s/s"}),
        ("redis://joe:p@s:s@h", {"host": "h", "port": 6379, "username": "joe", "password": "p@s:s"}),
        ("redis://:a#b@h", {"host": "h", "port": 6379, "password": "a#b"}),
        ("redis://joe@h", {"host": "h", "port": 6379, "username": "joe"}),
        ("rediss://h", {"host": "h", "port": 6379, "ssl": True}),
        (f"rediss://h?ssl_ca_certs={HERE}", {"host": "h", "port": 6379, "ssl": True, "ssl_ca_certs": HERE}),
        ("rediss://h?ssl_check_hostname=no", {"host": "h", "port": 6379, "ssl": True, "ssl_check_hostname": False}),
        ("redis://h?client_name=me", {"host": "h", "port": 6379, "client_name": "me"}),
        ("unix:///run/a%20b.sock", {"unix_socket_path": "/run/a b.sock"}),
        ("unix://joe:x@/s?db=3", {"unix_socket_path": "/s", "username": "joe", "password": "x", "db": 3}),
    ],
)
def test_a_single_server(url: str, options: dict[str, Any]) -> None:
    address = read_address(url)

    assert (address.kind, address.options) == ("single", options)


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service", "options"),
    [
        ("redis+cluster://a,b:7", "cluster", (("a", 6379), ("b", 7)), "", {}),
        ("redis+cluster://[::1]:1,[::2]/0", "cluster", (("::1", 1), ("::2", 6379)), "", {}),
        ("rediss+cluster://:x@a?client_name=me", "cluster", (("a", 6379),), "", {"ssl": True, "client_name": "me"}),
        ("redis+sentinel://a,b:7/main", "sentinel", (("a", 26379), ("b", 7)), "main", {}),
        ("redis+sentinel://a/the%20main/3", "sentinel", (("a", 26379),), "the main", {"db": 3}),
    ],
)
def test_several_hosts(url: str, kind: str, hosts: Any, service: str, options: dict[str, Any]) -> None:
    address = read_address(url)
    login = {"password": "x"} if "x@" in url else {}

    assert (address.kind, address.hosts, address.service) == (kind, hosts, service)
    assert address.options == options | login


BAD = [
    ("redis", "no such scheme"),
    ("host:6379", "no such scheme"),
    ("127.0.0.1", "no such scheme"),
    ("redis:/h", "no such scheme"),
    ("mysql://h", "no such scheme"),
    ("redis+foo://h", "no such scheme"),
    ("unix+cluster://h", "no such scheme"),
    ("redis://h:0", "not from 1 to 65535"),
    ("redis://h:65536", "not from 1 to 65535"),
    ("redis+cluster://a:1,b:99999", "not from 1 to 65535"),
    ("redis://h:x", "a port is no number"),
    ("redis://h:٣", "a port is no number"),
    ("redis://::1", "a port is no number"),
    ("redis://[::1", "a port is no number"),
    ("redis://:6379", "a host is missing"),
    ("redis+cluster://", "a host is missing"),
    ("redis+cluster://a,,b", "a host is missing"),
    ("redis://a,b", "several hosts are for a cluster"),
    ("redis+sentinel://h", "the service that the sentinels watch is missing"),
    ("redis+sentinel://h/", "the service that the sentinels watch is missing"),
    ("redis+sentinel://h/main/x", "the database is no number"),
    ("redis://h/x", "the database is no number"),
    ("redis://h/-1", "the database is no number"),
    ("redis://h?db=x", "Invalid value for 'db'"),
    ("redis+cluster://h/5", "a cluster has database 0 only"),
    ("redis+cluster://h?db=5", "a cluster has database 0 only"),
    ("unix://", "a path from the root"),
    ("unix://run/s", "a path from the root"),
    ("redis://h?colour=red", "there is no parameter 'colour', there are ssl_ca_certs"),
    ("redis://h?decode_responses=true", "there is no parameter 'decode_responses'"),
    ("redis://h?pool_size=5", r"give pool_size beside it, as in open_storage\(url, pool_size=…\)"),
    ("rediss://h?ssl_ca_certs=/no/such/file", "ssl_ca_certs is no file on this machine"),
]


@pytest.mark.parametrize(("url", "what"), BAD)
def test_a_url_of_no_server_says_what_is_wrong_and_what_to_write(url: str, what: str) -> None:
    with pytest.raises(InvalidValue, match=f"expected url to be a Redis URL, got .*{what}.*; write redis://host") as no:
        RedisStorage(url)

    assert no.value.field == "url"


@pytest.mark.parametrize("url", [url for url, _ in BAD if url.startswith(("redis", "unix"))])
async def test_opening_it_says_the_same(url: str) -> None:
    with pytest.raises(InvalidValue, match=r"expected url to be a (Redis|storage's) URL"):
        await open_storage(url)


# -- passwords


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h:99999",
        f"redis://joe:{SECRET}@h/x",
        f"redis://joe:a@{SECRET}@h/x",
        f"redis://joe:{SECRET}/a@h",
        f"redis://joe:{SECRET}?a=b@h",
        f"redis://:a/{SECRET}=a@h",
        f"redis://:a?{SECRET}=a@h",
        f"redis+cluster://:{SECRET}@h:x",
        f"redis+sentinel://:{SECRET}@h",
        f"mysql://root:{SECRET}@h",
        f"unix://:{SECRET}@",
        f"redis://h/x?password={SECRET}",
        f"rediss://h/x?ssl_password={SECRET}&a=b",
    ],
)
async def test_a_bad_url_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        await open_storage(url)

    assert SECRET not in str(refusal.value) + repr(refusal.value) + repr(refusal.value.args)


@pytest.mark.parametrize("url", ["redis://h", "redis://joe@h:5/0?db=5", "unix:///run/s", "redis+cluster://a:1,b:2"])
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert without_password(url) == url


def test_nothing_that_is_printed_shows_a_password() -> None:
    config = RedisConfig(f"redis://joe:{SECRET}@h", password=SECRET)
    shown = [repr(each) for each in (config, RedisStorage(config), Target.of(config), Target.of(config).address)]

    assert SECRET not in "".join(shown)
    assert shown[0] == "RedisConfig(url='redis://joe:***@h', password='***')"
