"""Rowcast: committed rows in, trustworthy domain events out, applied exactly once on the other side."""

__version__ = "0.1.0"
