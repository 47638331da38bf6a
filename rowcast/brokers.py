"""
How every client reaches Kafka: bootstrap servers, and what TLS and SASL need, in the words of each client library.

Values arrive complete: passwords were looked up, paths are absolute. Nothing here prints one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# In the words of kafka-python, which are those of the settings too, and of librdkafka.
SECURITY = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
SECRETS = frozenset({"sasl_plain_password", "ssl_password"})
FILES = frozenset({"ssl_cafile", "ssl_certfile", "ssl_keyfile"})


@dataclass(frozen=True, slots=True)
class Brokers:
    """*servers* are ``host:port``, separated by commas; *security* has kafka-python's options, a part of `SECURITY`."""

    servers: str
    security: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.servers

    def kafka_python(self) -> dict[str, str]:
        """The options of a kafka-python client."""
        return {"bootstrap_servers": self.servers, **self.security}

    def librdkafka(self) -> dict[str, str | int]:
        """The options of a librdkafka client; of its messages warnings alone, connection chatter is not news."""
        options = {SECURITY[name]: value for name, value in self.security.items()}
        return {"bootstrap.servers": self.servers, "log_level": 4, **options}
