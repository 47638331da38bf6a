"""What the consumer's connections to Kafka have in common."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import errors as kafka_errors

from rowcast.brokers import SECURITY, Brokers
from rowcast.errors import BrokerUnavailableError, ConfigurationError
from rowcast.kafka_fault import RIGHTS, refused_right, why_unreachable

_log = logging.getLogger("rowcast.consumer")

# Every blocking call ends within this, so that a stop is orderly in seconds whatever the broker does.
CALL_TIMEOUT_S = 3.0
# New topics and partitions are seen this fast.
METADATA_MAX_AGE_S = 10
_SECURITY_PREFIXES = ("security_protocol", "ssl_", "sasl_")
# Retrying cannot mend these.
_REFUSED = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.UnsupportedVersionError,
)


def client_options(brokers: str, security: Mapping[str, object]) -> dict[str, Any]:
    """
    The options of every kafka-python client of the consumer.

    Raises:
        ConfigurationError: *security* has another option than ``security_protocol``, ``ssl_*`` and ``sasl_*``.
    """
    for name in security:
        if not name.startswith(_SECURITY_PREFIXES):
            raise ConfigurationError(
                f"unknown option {name!r}", where="security", fix="known: security_protocol, ssl_*, sasl_*"
            )
    return {
        "bootstrap_servers": brokers.split(","),
        "bootstrap_timeout_ms": int(CALL_TIMEOUT_S * 1000),
        "request_timeout_ms": 10_000,
        "reconnect_backoff_max_ms": 2_000,
        "metadata_max_age_ms": METADATA_MAX_AGE_S * 1000,
        **security,
    }


def brokers_of(options: Mapping[str, Any]) -> Brokers:
    """The brokers that clients with these *options* reach, and how."""
    security = {name: str(options[name]) for name in SECURITY if options.get(name) is not None}
    return Brokers(",".join(options["bootstrap_servers"]), security)


@contextmanager
def broker_errors(doing: str, options: Mapping[str, Any], resource: str = "") -> Iterator[None]:
    """
    Kafka's errors as ours; *options* are the client's, *resource* is what it uses.

    Raises:
        ConfigurationError: the broker refuses this client.
        BrokerUnavailableError: everything else.
    """
    try:
        yield
    except _REFUSED as error:
        named = resource or _named(error)
        right = refused_right(getattr(error, "errno", None), brokers_of(options), named)
        if right is not None:
            raise ConfigurationError(f"{doing}: {right}", where="brokers") from error
        login = "security: the user and password, and sasl_mechanism"
        raise ConfigurationError(f"{doing}: {error}", where="brokers", fix=login) from error
    except (kafka_errors.KafkaError, OSError) as error:
        raise BrokerUnavailableError(f"{doing}: {type(error).__name__}: {error}") from error


def tell_why(options: Mapping[str, Any]) -> None:
    """Say in the log what keeps clients with these *options* from the brokers; found out in the background."""

    def find_out() -> None:
        reason = why_unreachable(brokers_of(options))
        if reason is not None:
            _log.warning("%s", reason)

    threading.Thread(target=find_out, name="rowcast reason", daemon=True).start()


def _named(error: BaseException) -> str:
    """The topics or the group that an error is about, as far as it says."""
    kind = RIGHTS.get(getattr(error, "errno", 0), "resource")
    found = error.args[0] if error.args else None
    if isinstance(found, str):
        return f"{kind} {found}"
    if isinstance(found, set | frozenset | list | tuple):
        return f"{kind} {', '.join(sorted(map(str, found)))}"
    return ""
