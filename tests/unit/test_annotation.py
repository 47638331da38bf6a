"""What a service says about its transaction."""

from __future__ import annotations

import json

import pytest

from rowcast.annotation import statement
from rowcast.errors import ConfigurationError

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_only_what_is_given_is_said() -> None:
    """Nothing is null, and every text arrives as it is."""
    assert json.loads(statement(actor="Ünal \U0001f600", traceparent=PARENT)) == {
        "actor": "Ünal \U0001f600",
        "traceparent": PARENT,
    }
    assert statement() == "{}"


@pytest.mark.parametrize("trace", ["", "00-abc", PARENT.upper(), PARENT + "\n"])
def test_what_is_no_trace_is_refused(trace: str) -> None:
    """It would be dropped silently in the worker."""
    with pytest.raises(ConfigurationError, match="traceparent: is no W3C traceparent"):
        statement(traceparent=trace)


def test_too_much_is_refused() -> None:
    """Every event of the transaction would carry it."""
    with pytest.raises(ConfigurationError, match="at most 10000 bytes"):
        statement(reason="é" * 6_000)
