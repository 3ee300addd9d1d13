"""`qml-nb migrate`, as a person types it: in a process of its own."""

import asyncio
import sys

import pytest

from qml_nb import Job

CLI = (sys.executable, "-c", "from qml_nb.cli import main; main()", "migrate")


async def migrate(*arguments: str) -> tuple[int, str]:
    """Run the command, and return its status and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *CLI, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, printed.decode()


async def test_it_makes_what_a_storage_without_auto_migrate_needs(connect, url, schema) -> None:
    names = ("--schema-name", schema)
    status, said = await migrate(url, *names, "--check")
    assert (status, "has no schema yet" in said, "Traceback" in said) == (1, True, False)
    assert await migrate(url, *names) == (0, f"{url}: {schema}.qml_jobs was brought to schema version 1\n")
    assert await migrate(url, *names, "--check") == (0, f"{url}: nothing to migrate\n")
    storage = await connect(url, auto_migrate=False)
    assert await storage.enqueue(Job("work")) is True


async def test_many_at_once_make_it_once(connect, url, schema, direct) -> None:
    answers = await asyncio.gather(*(migrate(url, "--schema-name", schema, "--table-name", "jobs") for _ in range(4)))
    assert [status for status, _ in answers] == [0] * 4
    assert await direct.fetch(f"select version from {schema}.jobs_version") == [(1,)]


async def test_it_leaves_alone_what_a_newer_version_made(connect, url, schema, direct) -> None:
    await connect(url)
    await direct.execute(f"update {schema}.qml_jobs_version set version = 7")
    status, said = await migrate(url, "--schema-name", schema)
    assert (status, "made by a newer qml_nb" in said, "Traceback" in said) == (1, True, False)
    assert await direct.fetch(f"select version from {schema}.qml_jobs_version") == [(7,)]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["memory://"], 0, "memory://: nothing to migrate"),
        (["memory://", "--schema-name", "x"], 1, "schema_name"),
        (["oracle://joe:secret@host"], 1, "oracle://joe:***@host"),
        (["postgresql://joe:secret@127.0.0.1:1/x"], 1, "no connection to postgresql://joe:***@127.0.0.1:1/x"),
        ([], 2, "Missing argument"),
        (["--help"], 0, "qml-nb migrate postgresql://"),
    ],
)
async def test_what_else_it_says(arguments, status, says) -> None:
    ended, said = await migrate(*arguments)
    assert ended == status
    assert says in said
    assert "secret" not in said
    assert "Traceback" not in said
