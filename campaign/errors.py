"""What ends a round, or the campaign, without a verdict."""

from __future__ import annotations


class NoVerdictError(Exception):
    """A part did not come up, or the observers themselves disagree: nothing can be said about the pipeline."""
