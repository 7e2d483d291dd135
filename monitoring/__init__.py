"""Metrics, events, logs, health."""
