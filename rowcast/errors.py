"""
The one error tree of Rowcast, sorted by what the caller has to do.

    RowcastError
    ├── ConfigurationError        refuse to start: names the thing and the fix (exit code 2)
    ├── PoisonError               can never succeed: refuse or park it, go on
    │   ├── MalformedChangeError      a change-log record that is not what Debezium writes
    │   ├── MalformedEventError       a record on a domain topic that is not one of our events
    │   ├── MappingError              a row that the declared mapping cannot turn into an entity
    │   └── ContractViolationError    an event that its published schema rejects
    ├── TransientError            may succeed later: retry with backoff, never skip
    │   ├── BrokerUnavailableError
    │   ├── DatabaseUnavailableError
    │   └── ConnectUnavailableError
    ├── OwnershipLostError        another worker (or instance) owns this now: drop it at once
    └── StopError                 something is wrong that retrying cannot mend: stop before the position moves
"""

from __future__ import annotations


class RowcastError(Exception):
    """Catch this to catch everything that Rowcast raises on purpose."""


class ConfigurationError(RowcastError):
    """
    Settings, a file or the environment are wrong; nothing was touched.

    *where* names the place (``connectors/shop.yaml:12``, ``ROWCAST_BROKERS``), *fix* says what to do.
    """

    def __init__(self, message: str, *, where: str = "", fix: str = "") -> None:
        self.message, self.where, self.fix = message, where, fix
        super().__init__(": ".join(part for part in (where, message) if part) + (f" ({fix})" if fix else ""))


class PoisonError(RowcastError):
    """An input that can never succeed; it is refused or parked, and everything else goes on."""


class MalformedChangeError(PoisonError):
    """A change-log record is not a Debezium change event."""


class MalformedEventError(PoisonError):
    """A record on a domain topic is not a Rowcast event."""


class MappingError(PoisonError):
    """A row cannot be mapped to its entity."""


class ContractViolationError(PoisonError):
    """An event does not validate against its published schema."""


class TransientError(RowcastError):
    """The other side is slow or away; the same call may succeed later."""


class BrokerUnavailableError(TransientError):
    """Kafka did not answer or did not acknowledge."""


class DatabaseUnavailableError(TransientError):
    """A database did not answer or cut the connection."""


class ConnectUnavailableError(TransientError):
    """Kafka Connect's REST interface did not answer."""


class OwnershipLostError(RowcastError):
    """The lease, epoch or offset generation belongs to somebody else now."""


class StopError(RowcastError):
    """
    An integrity fault: going on would pass on something wrong.

    *code* is stable and documented (``CHANGE_LOG_TRUNCATED``), *remedy* is the command that mends it.
    """

    def __init__(self, code: str, message: str, *, remedy: str = "") -> None:
        self.code, self.message, self.remedy = code, message, remedy
        super().__init__(f"{code}: {message}" + (f" Remedy: {remedy}" if remedy else ""))
