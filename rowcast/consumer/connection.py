"""What the consumer's connections to Kafka have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import errors as kafka_errors

from rowcast.errors import BrokerUnavailableError, ConfigurationError

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


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """
    Kafka's errors as ours.

    Raises:
        ConfigurationError: the broker refuses this client.
        BrokerUnavailableError: everything else.
    """
    try:
        yield
    except _REFUSED as error:
        raise ConfigurationError(
            f"{doing}: {error}", where="brokers", fix="correct the credentials or grant the rights"
        ) from error
    except (kafka_errors.KafkaError, OSError) as error:
        raise BrokerUnavailableError(f"{doing}: {type(error).__name__}: {error}") from error
