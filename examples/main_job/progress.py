"""Lines that say what is going on, on standard error."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """Say one thing."""
    print(line, file=sys.stderr, flush=True)
