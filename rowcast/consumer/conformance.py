"""
The contracts that a consumer holds the events to that it reads.

Apart from the rest of the SDK, because it needs the extra ``schemas``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rowcast.contracts.contract import contract_paths, newest_of_major
from rowcast.contracts.validation import ValueValidator
from rowcast.errors import ConfigurationError
from rowcast.event import DomainEvent


def conformance(schemas: Path, domain: str, aggregate: str, major: int) -> Callable[[DomainEvent], None]:
    """
    What raises `ContractViolationError` for an event of that *major* that its contract in *schemas* does not accept.

    The newest minor version there counts; an event of a newer one is valid by it too, as minor versions only add. Of
    a stated event the data are checked too, where its contract is there. Messages hold no values.

    Raises:
        ConfigurationError: there is no such contract, or it cannot be read.

    """
    folder = schemas / domain / aggregate
    if not any(path.parent == folder and int(match[1]) == major for path, match in contract_paths(schemas)):
        raise ConfigurationError(
            f"there is no contract of major {major}",
            where=str(folder),
            fix=f"copy v{major}.*.json there from the service that publishes {domain}.{aggregate}",
        )
    contract = newest_of_major(schemas, domain, aggregate, major)
    plain = ValueValidator(contract.value_schema()).check
    stated = {each.event: ValueValidator(contract.stated_schema(each)).check for each in contract.stated()}

    def check(event: DomainEvent) -> None:
        told = plain if event.stated is None else stated.get(event.stated, plain)
        told(event.value())

    return check
