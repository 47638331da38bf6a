"""Web pages and REST calls of servers beside us; no proxy of the environment is meant for them."""

from __future__ import annotations

import requests

_TIMEOUT_S = 30.0


def call(url: str, method: str = "GET") -> requests.Response:
    """
    The answer of *url*.

    Raises:
        requests.RequestException: there was none, or it says that the call failed.

    """
    with requests.Session() as session:
        session.trust_env = False
        response = session.request(method, url, timeout=_TIMEOUT_S)
    response.raise_for_status()
    return response
