"""A connection to PostgreSQL whose answers get lost, and one whose statements take long."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from proxy_fixture import Proxies
from psycopg.conninfo import make_conninfo
from stack_fixture import SharedStack

from rowcast.database import connect

LONG_S = 14
GIVEN_UP_S = 20


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_lost_answer_is_given_up(stack: SharedStack, proxies: Proxies, direction: str) -> None:
    """Neither the statement nor its answer arrives, and the connection stays open: the wait ends all the same."""
    url = stack.settings.database("postgres").parameters()
    road = proxies.to(int(url["port"]))
    with connect(make_conninfo(**{**url, "port": road.port}), application="test", autocommit=True) as connection:
        connection.execute("SELECT 1")
        road.forget(direction)
        started_s = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="no answer arrived"):
            connection.execute("SELECT 1")
        assert time.monotonic() - started_s < GIVEN_UP_S
        assert connection.closed


@pytest.mark.slow
def test_a_statement_that_takes_long_is_not_given_up(stack: SharedStack, proxies: Proxies) -> None:
    """The server works on it, or cannot be asked: it is waited for."""
    url = stack.settings.database("postgres").parameters()
    road = proxies.to(int(url["port"]))
    held = threading.Timer(2, road.hold)
    healed = threading.Timer(LONG_S + 2, road.heal)
    with connect(make_conninfo(**{**url, "port": road.port}), application="test", autocommit=True) as connection:
        assert connection.execute("SELECT 1 FROM pg_sleep(%s)", (LONG_S,)).fetchone() == (1,)
        held.start()
        healed.start()
        assert connection.execute("SELECT 2 FROM pg_sleep(%s)", (LONG_S - 1,)).fetchone() == (2,)
    held.join()
    healed.join()
