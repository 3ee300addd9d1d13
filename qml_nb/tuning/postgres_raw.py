"""What PostgreSQL itself can do: pgbench, which calls the same functions as the storage, with jobs made on the server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from qml_nb.servers.postgres import find_postgres

SECONDS = 2
_PUSH = r"""\set n :n + 1
select "{schema}".qml_jobs_push(
  array(select '00000000-0000-7000-8000-' || lpad(to_hex(:n::bigint * {many} + i), 12, '0') from generate_series(1, {many}) i),
  array['default'], array['noop'], array[0], array[0], '{{}}'::float8[], '{{}}'::text[], array_fill(1::float8, array[{many}]),
  array[0]::smallint[], '{{}}'::float8[], array(select '[' || i || ']' from generate_series(1, {many}) i), array['{{}}'],
  array['{{}}'], '{{}}'::text[], null, true, null, 86400, 'dropped');
"""
_CLAIM_AND_SETTLE = r"""select array_agg(id)::text as ids, array_agg(claim_id)::text as claims
  from "{schema}".qml_jobs_claim('pgbench', array['default'], {many}, 30, false, null) \gset
select "{schema}".qml_jobs_settle(
  :ids::uuid[], :claims::bigint[], array_fill(4::smallint, array[{many}]), array_fill(null::json, array[{many}]),
  array_fill(null::text, array[{many}]), array_fill(null::float8, array[{many}]), null, 86400, 604800);
"""


def pushed(url: str, schema: str, many: int) -> float | None:
    """Return the jobs a second that one connection stores, so many a call; None where pgbench is missing."""
    return _rate(url, _PUSH.format(schema=schema, many=many), many, "-T", SECONDS)


def cycled(url: str, schema: str, many: int) -> float | None:
    """Return the jobs a second that one connection stores, claims and settles, so many a call, one call after the other."""
    return _rate(url, (_PUSH + _CLAIM_AND_SETTLE).format(schema=schema, many=many), many, "-T", SECONDS)


def settled(url: str, schema: str, many: int, jobs: int) -> float | None:
    """Return the jobs a second that one connection claims and settles of those that are there, so many a call."""
    return _rate(url, _CLAIM_AND_SETTLE.format(schema=schema, many=many), many, "-t", jobs // many)


def _rate(url: str, script: str, many: int, *until: str | int) -> float | None:
    program = find_postgres() / "pgbench"
    if not program.exists():
        return None
    with TemporaryDirectory(prefix="qml-bench-") as folder:
        file = Path(folder) / "cycle.sql"
        file.write_text(script)
        options = ("-n", "-M", "prepared", "-D", "n=0", "-f", str(file))
        command = (str(program), *options, *map(str, until), url)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise RuntimeError(f"pgbench ended with status {done.returncode}: {done.stderr.strip()}")
    return float(found[1]) * many
