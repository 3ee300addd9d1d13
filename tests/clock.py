"""The clock of the tests: they pass `now`, so that none of them sleeps."""

from datetime import UTC, datetime, timedelta

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """The instant this many seconds after `NOW`."""
    return NOW + timedelta(seconds=seconds)
