"""Counts in words: one change, two changes."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """*number* and *noun*, which takes an s in the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
