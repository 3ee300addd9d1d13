"""Measurement: mergeable histograms of the phases of a job, and a monitor of servers and storage."""

from qml_nb.measure.histogram import Histogram
from qml_nb.measure.monitor import Monitor, Sample

__all__ = ["Histogram", "Monitor", "Sample"]
