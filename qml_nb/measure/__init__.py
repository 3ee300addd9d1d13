"""Measurement: mergeable histograms of the phases of a job, a monitor of servers and storage, a probe of Redis."""

from qml_nb.measure.histogram import Histogram
from qml_nb.measure.monitor import Monitor, Sample
from qml_nb.measure.redis_probe import RedisCost, RedisReading, cost_per_job, latency_history, read_redis

__all__ = [
    "Histogram",
    "Monitor",
    "RedisCost",
    "RedisReading",
    "Sample",
    "cost_per_job",
    "latency_history",
    "read_redis",
]
