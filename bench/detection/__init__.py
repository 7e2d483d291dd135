"""Evaluation of the theft detector over files: python -m bench.detection NAME; docs/detection.md holds the tables."""
