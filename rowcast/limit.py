"""
Limits above which work is done in pieces, so that its size does not become the memory of a worker.

Set by ``ROWCAST_LIMITS``, a comma-separated list of ``name=number``, where a test wants what is large to be common.
"""

from __future__ import annotations

import os

from rowcast.errors import ConfigurationError

_VARIABLE = "ROWCAST_LIMITS"
_NAMES = ("transaction_changes", "chunk_aggregates", "descendants")


def _parse(text: str) -> dict[str, int]:
    limits = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = entry.partition("=")
        if name not in _NAMES or not number.isdecimal() or int(number) == 0:
            raise ConfigurationError(
                f"cannot read {entry!r}", where=_VARIABLE, fix=f"name=number, above 0; names: {', '.join(_NAMES)}"
            )
        limits[name] = int(number)
    return limits


_limits = _parse(os.environ.get(_VARIABLE, ""))


def limit(name: str, usual: int) -> int:
    """The limit called *name*: *usual*, unless another one was set."""
    assert name in _NAMES, name
    return _limits.get(name, usual)
