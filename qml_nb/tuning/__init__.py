"""Tuning: what the queue can do at the most, and what stands in its way."""
