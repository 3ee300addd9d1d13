"""The names of one install in the database: two with different schema or table names share it and nothing else."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from importlib.resources import files

from qml_nb.storage.backend import WATCHED

_PINNED = (
    "set search_path = pg_catalog set jit = off set plan_cache_mode = force_generic_plan set enable_seqscan = off "
    "set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off"
)
"""What keeps a function to its indexes, also on a table that was analysed while it was empty."""
_NAME = re.compile(r"\bqml\.(\w+)")
_LONGEST_CHANNEL = 63


class Names:
    """Turns `qml.NAME` into a name of this install. Schema and table were checked by the configuration."""

    def __init__(self, schema: str, table: str, synchronous_commit: bool | None = None) -> None:
        self.schema, self.table = schema, table
        # For the transaction only: behind a pooler a SET of the session would be somebody else's next.
        setting = "set_config('synchronous_commit', '{}', true), "
        self._committing = "" if synchronous_commit is None else setting.format("on" if synchronous_commit else "off")
        channel = f"{schema}.{table}"
        if len(channel) > _LONGEST_CHANNEL:
            channel = f"qml.{sha256(channel.encode()).hexdigest()[:32]}"
        self.channel = channel

    def of(self, name: str) -> str:
        """Return the full name of one thing, quoted.

        >>> Names("qml", "jobs").of("job"), Names("qml", "jobs").of("done")
        ('"qml"."jobs"', '"qml"."jobs_done"')
        """
        return f'"{self.schema}"."{self.table}"' if name == "job" else f'"{self.schema}"."{self.table}_{name}"'

    def fill(self, text: str) -> str:
        """Return a statement, or a whole file of them, for this install."""
        named = _NAME.sub(lambda found: self.of(found[1]), text)
        return named.replace("@pinned@", _PINNED).replace("@channel@", self.channel).replace("@watched@", WATCHED)

    def call(self, verb: str, columns: str, arguments: int, *, commits: bool = True) -> str:
        """Return the statement that calls a function; it says how to commit, unless the transaction is somebody else's."""
        marks = ", ".join(f"${number}" for number in range(1, arguments + 1))
        return " ".join(
            ("select", columns, "from", f"{self._committing if commits else ''}{self.of(verb)}({marks})", verb)
        )


@cache
def read(name: str) -> str:
    """Return the text of a `.sql` file of this package."""
    return (files("qml_nb.storage.postgres") / f"{name}.sql").read_text("utf-8")
