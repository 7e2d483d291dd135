"""The command `gridtally`."""

__version__ = "0.1.0"
