"""Measurement: mergeable histograms of the phases of a job, a monitor of servers and storage, probes of Redis and PostgreSQL."""

from qml_nb.measure.cost import cost_per_job
from qml_nb.measure.histogram import Histogram
from qml_nb.measure.monitor import Monitor, Sample
from qml_nb.measure.postgres_probe import read_postgres
from qml_nb.measure.postgres_reading import PostgresCost, PostgresReading
from qml_nb.measure.redis_probe import RedisCost, RedisReading, latency_history, read_redis

__all__ = [
    "Histogram",
    "Monitor",
    "PostgresCost",
    "PostgresReading",
    "RedisCost",
    "RedisReading",
    "Sample",
    "cost_per_job",
    "latency_history",
    "read_postgres",
    "read_redis",
]
