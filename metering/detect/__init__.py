"""Detectors of the stream: what events and measured values say about a meter; pure."""
