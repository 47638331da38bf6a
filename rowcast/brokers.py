"""
How every client reaches Kafka: bootstrap servers, and what TLS and SASL need, in the words of each client library.

Values arrive complete: passwords were looked up, paths are absolute. Nothing here prints one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rowcast.tls import TlsFiles

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
        if "ssl_certfile" in self.security:
            # The key may stand in the certificate's file, where this library does not look for it.
            options.setdefault(SECURITY["ssl_keyfile"], self.security["ssl_certfile"])
        return {"bootstrap.servers": self.servers, "log_level": 4, **options}

    def tls(self) -> TlsFiles:
        """The files that TLS is made with."""
        return TlsFiles(
            *(self.security.get(name) for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password"))
        )

    @property
    def uses_tls(self) -> bool:
        """Whether connections are by TLS."""
        return self.protocol.endswith("SSL")

    @property
    def protocol(self) -> str:
        """One of `PROTOCOLS`."""
        return self.security.get("security_protocol", PROTOCOLS[0])

    @property
    def principal(self) -> str:
        """Who the brokers take this client for, as rights are given to it."""
        if "sasl_plain_username" in self.security:
            return f"User:{self.security['sasl_plain_username']}"
        if "ssl_certfile" in self.security:
            return "the subject of the client certificate"
        return "User:ANONYMOUS"

    def places(self) -> list[tuple[str, int]]:
        """Host and port of each bootstrap server; those that are no such pair are left out."""
        pairs = [each.strip().rpartition(":") for each in self.servers.split(",")]
        return [(host.strip("[]"), int(port)) for host, _colon, port in pairs if host and port.isdigit()]
