"""`qml-nb stats`: what people read, what programs read, and a probe."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from qml_nb import Job, QueueConfig, Recurring, ServerInfo, Storage
from qml_nb.cli.stats import as_line, as_page
from qml_nb.measure.storage_reading import QueueReading, ScheduleReading, ServerReading, StorageReading
from qml_nb.servers import LocalServer
from qml_nb.storage import storage_of
from tests.cli.workers import CLI, LONG, Address
from tests.versions import PROGRAMS

NOW = 1_800_000_000.0
COUNTS = {"enqueued": 12_000, "processing": 3, "failed": 1}
READING = StorageReading(
    NOW,
    [
        QueueReading("mail", COUNTS, False, QueueConfig(rate=10, burst=5), 90.0),
        QueueReading("off", {}, True, QueueConfig(), None),
    ],
    [
        ServerReading("mailer#1", "mailer", "pod-1", 42, 20, ("mail", "off"), 7_300.0, 4.0),
        ServerReading("old#2", "old", "pod-2", 7, 5, (), 250_000.0, 31.0),
    ],
    [
        ScheduleReading("nightly", "0 3 * * *", "Europe/Berlin", "report", "slow", True, NOW + 5_400, NOW - 60),
        ScheduleReading("never", "0 3 * * *", "UTC", "report", "slow", False, None, None),
    ],
)


def test_people_read_tables() -> None:
    assert [line.rstrip() for line in as_page("redis://host", READING)] == [
        "redis://host at 2027-01-15 08:00:00 UTC",
        "",
        "queue  enqueued  processing  scheduled  awaiting_retry  succeeded  failed  deleted  next waits",
        "mail     12,000           3          0               0          0       1        0        90 s  rate=10.0, burst=5",
        "off           0           0          0               0          0       0        0              paused",
        "",
        "server    where       slots  queues     up for  heartbeat",
        "mailer#1  pod-1 (42)     20  mail, off     2 h  4.0 s ago",
        "old#2     pod-2 (7)       5  all          69 h   31 s ago  NOT LIVE",
        "",
        "schedule  cron       time zone      method  queue  next                                 last",
        "nightly   0 3 * * *  Europe/Berlin  report  slow   2027-01-15 09:30:00 UTC (in 90 min)  2027-01-15 07:59:00 UTC",
        "never     0 3 * * *  UTC            report  slow   paused                               never",
    ]


def test_an_empty_storage_is_a_page_too() -> None:
    assert list(as_page("memory://", StorageReading(NOW, [], [], [])))[1:] == ["", "no jobs", "", "no servers"]


def test_names_from_a_storage_do_nothing_to_a_terminal() -> None:
    reading = StorageReading(NOW, [QueueReading("\x1b[2J\nmail", {}, False, QueueConfig(), None)], [], [])
    page = "\n".join(as_page("memory://", reading))
    assert "\\x1b[2J\\nmail" in page
    assert "\x1b" not in page


def test_programs_read_one_line_of_json() -> None:
    line = as_line("redis://host", READING)
    read = json.loads(line)
    assert "\n" not in line
    assert (read["storage"], read["ts"]) == ("redis://host", NOW)
    assert read["queues"][0]["jobs"] == COUNTS
    assert read["queues"][0]["config"]["rate"] == 10
    assert read["servers"][1]["heartbeat_age_seconds"] == 31.0
    assert read["schedules"][0]["next_ts"] == NOW + 5_400


# -- the command, as a person types it


@pytest.fixture
def storage(address: Address) -> Iterator[Storage]:
    """The same storage, in this process, with a server and a few jobs."""
    storage = storage_of(address.url, **address.options)
    storage.sync.register_server(ServerInfo("mailer#1", "mailer", 10, ("mail",), "pod-1", 42))
    storage.sync.enqueue_many([Job("send", [n], queue="mail") for n in range(3)])
    storage.sync.upsert_recurring(Recurring("nightly", "0 3 * * *", "report", next_ts=4e9))
    yield storage
    storage.sync.close()


def stats(address: Address, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *CLI, "stats", address.url, *address.words, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)


def test_it_shows_what_is_there(address, storage) -> None:
    done = stats(address)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith(f"{address.url} at 20")
    assert any(line.split()[:2] == ["mail", "3"] for line in lines)
    assert any(line.startswith("mailer#1  pod-1 (42)") for line in lines)
    assert any("2096-10-02 07:06:40 UTC" in line for line in lines)


def test_it_shows_one_queue_as_json(address, storage) -> None:
    done = stats(address, "--queue", "slow", "--json")
    assert [each["queue"] for each in json.loads(done.stdout)["queues"]] == ["slow"]
    assert json.loads(done.stdout)["servers"] == []


def test_it_shows_it_again_until_ctrl_c(address, storage) -> None:
    command = [sys.executable, *CLI, "stats", address.url, *address.words, "--json", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["queues"][0]["jobs"]["enqueued"] == 3
        storage.sync.enqueue(Job("send", queue="mail"))
        while json.loads(watching.stdout.readline())["queues"][0]["jobs"]["enqueued"] == 3:
            pass
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(LONG) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], None),
        (["--max-waiting", "3", "--max-age", "3600"], None),
        (["--name", "mailer", "--queue", "mail"], None),
        (["--name", "pod-1"], None),
        (["--max-waiting", "2"], "3 jobs wait, more than 2"),
        (["--max-age", "0"], "('send' in queue 'mail') has waited"),
        (["--name", "pod-2"], "no server 'pod-2' is registered, only 'mailer' on 'pod-1'"),
        (["--queue", "slow"], "no server is registered"),
    ],
)
def test_a_probe_ends_with_status_1_and_a_reason(address, storage, options, says) -> None:
    done = stats(address, "--check", *options)
    assert (done.returncode, done.stdout) == (0 if says is None else 1, "")
    assert done.stderr.count("\n") == (says is not None)
    assert (says or "") in done.stderr


def test_a_probe_of_a_storage_that_is_away_says_so(server: LocalServer) -> None:
    server.kill()
    done = stats(Address(server.url, {}), "--check")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("qml-nb: no connection to Redis")


def test_who_only_looks_makes_no_tables(servers) -> None:
    address = Address(servers.postgres(programs=PROGRAMS), {"schema_name": f"test_{uuid4().hex[:20]}"})
    for _ in range(2):
        done = stats(address)
        assert done.returncode == 1
        assert "has no schema yet" in done.stderr


def test_bounds_without_a_check_are_refused() -> None:
    done = stats(Address("memory://", {}), "--max-waiting", "3")
    assert done.returncode == 2
    assert "bounds of --check; add it" in done.stderr
