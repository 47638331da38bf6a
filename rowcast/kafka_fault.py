"""
What is wrong where Kafka cannot be reached or refuses this client, in words that name the setting to mend.

Client libraries retry and in the end say that it took too long. Here each step of a connection is made once, by itself:
address, TLS, login, and the addresses that the brokers give themselves.
"""

from __future__ import annotations

import logging
import socket
from typing import Self

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, SaslAuthenticationFailedError

from rowcast.brokers import Brokers
from rowcast.sasl_offer import offered_mechanisms
from rowcast.tls import TlsFault, speaks_tls, why_not_trusted

_TIMEOUT_S = 6.0
# Error codes of the Kafka protocol, and what is refused with them.
RIGHTS = {29: "topic", 30: "group", 31: "cluster", 53: "transactional id"}
_RIGHTS_FIX = "what `rowcast sources plan --acl` prints, run by who administers Kafka"
_SETTING = {
    "address": "brokers",
    "name": "brokers: the host names in the certificates",
    "server": "kafka.security_protocol, or the brokers' certificates",
    "authority": "kafka.ssl_cafile: a PEM file with whom to trust",
    "certificate": "kafka.ssl_certfile and kafka.ssl_keyfile: a client certificate that the brokers accept",
    "key": "kafka.ssl_keyfile",
    "password": "kafka.ssl_password",
}
_CLIENT = logging.getLogger("kafka")


def refused_right(code: int | None, brokers: Brokers, resource: str = "") -> str | None:
    """What to say of an error *code* about *resource*; None when it is not about a right."""
    if code not in RIGHTS:
        return None
    named = resource or f"a {RIGHTS[code]}"
    return f"Kafka does not let {brokers.principal} use {named} ({_RIGHTS_FIX})"


def why_unreachable(brokers: Brokers) -> str | None:
    """
    What keeps a client from *brokers*, with the setting to mend; None where nothing does.

    Takes some seconds at most for each broker.
    """
    faults = [fault for fault in (_unreachable(brokers, *place) for place in brokers.places()) if fault is not None]
    if len(faults) < max(1, len(brokers.places())):
        return _refused(brokers)  # one that answers is enough to find the others
    if not faults:
        return "no bootstrap server is named (brokers: host:port, separated by commas)"
    return _told(faults[0])


def _told(fault: TlsFault) -> str:
    return f"{fault.message} ({_SETTING[fault.about]})"


def _unreachable(brokers: Brokers, host: str, port: int) -> TlsFault | None:
    if brokers.uses_tls:
        return why_not_trusted(host, port, brokers.tls())
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except socket.gaierror:
        return TlsFault("address", f"the host name {host!r} is not known")
    except OSError as error:
        reason = (error.strerror or "no answer in time").lower()
        return TlsFault("address", f"{host}:{port} does not answer: {reason}")
    if speaks_tls(host, port):
        return TlsFault("server", f"{host}:{port} speaks TLS, and {brokers.protocol} is set")
    return None


def _refused(brokers: Brokers) -> str | None:
    milliseconds = int(_TIMEOUT_S * 1000)
    with _Heard() as heard:
        try:
            options = {
                **brokers.kafka_python(),
                "bootstrap_timeout_ms": milliseconds,
                "request_timeout_ms": milliseconds,
            }
            with KafkaAdminClient(**options) as admin:
                known = [(str(each["host"]), int(each["port"])) for each in admin.describe_cluster()["brokers"]]
        except (KafkaError, OSError, ValueError) as error:
            return _login_fault(brokers, [*heard.errors, error])
    faults = [fault for fault in (_unreachable(brokers, *place) for place in known) if fault is not None]
    if known and len(faults) == len(known):
        return f"the brokers tell clients to reach them elsewhere: {faults[0].message} (advertised.listeners of Kafka)"
    return None


def _login_fault(brokers: Brokers, errors: list[BaseException]) -> str | None:
    if any(isinstance(each, SaslAuthenticationFailedError) for each in errors):
        return (
            f"Kafka refuses the login of {brokers.principal} (kafka.sasl_plain_username and kafka.sasl_plain_password)"
        )
    mechanism = brokers.security.get("sasl_mechanism")
    if mechanism is None:
        return "Kafka ends the connection; it may want a login (kafka.security_protocol, kafka.sasl_mechanism)"
    offers = [offered_mechanisms(brokers, *place) for place in brokers.places()]
    offered = next((each for each in offers if each is not None), (mechanism,))
    if mechanism not in offered:
        known = " or ".join(offered) or "none"
        return f"Kafka takes no login by {mechanism}, but by {known} (kafka.sasl_mechanism)"
    return None


class _Heard(logging.Handler):
    """While it is open: *errors* that the client library only logs, and keeps from whoever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        _CLIENT.addHandler(self)
        self._propagated, _CLIENT.propagate = _CLIENT.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        _CLIENT.removeHandler(self)
        _CLIENT.propagate = self._propagated

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the errors that a log line is about."""
        if isinstance(record.args, tuple):
            self.errors += [each for each in record.args if isinstance(each, BaseException)]
