"""Backtest of the estimation ladder."""
