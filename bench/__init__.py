"""Measurements: ratios in one run, min/median/max of at least three; never part of a timed test."""
