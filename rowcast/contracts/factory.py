"""
Valid events for tests of consumers, made from a contract: seeded, so that a test sees the same ones every time.

Needs nothing beyond what Rowcast itself needs. What is made is validated before it is handed out.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs

from rowcast.contracts.checking import pointer_of
from rowcast.contracts.compatibility.document import Node, SchemaDocument
from rowcast.contracts.compatibility.instances import Instances
from rowcast.contracts.contract import Contract, load_contract
from rowcast.errors import ConfigurationError, ContractViolationError
from rowcast.event import DomainEvent, EventKind
from rowcast.identity import Identity

Value = dict[str, Any]
_TRIES = 200
_OPTIONAL = 0.7
_DEPTH_MAX = 4
_START = datetime(2026, 1, 1, tzinfo=UTC)


class EventFactory:
    """
    Makes events of one contract: of *contract*, or of the newest one of a major, see `of`.

    Values are examples of the contract where it has some, ids and times are new each time; all follow from *seed*.
    """

    def __init__(self, contract: Contract, seed: int = 0) -> None:
        self._contract = contract
        self._random = random.Random(seed)  # noqa: S311 - the same events every time
        document = SchemaDocument(contract.version, dict(contract.entity))
        self._entity, self._instances = document.node, Instances(document, document, seed)
        self._validator = jsonschema_rs.Draft202012Validator(
            contract.value_schema(), validate_formats=True, mask="<value>"
        )
        self._made = 0

    @classmethod
    def of(cls, schemas: Path, event: str, seed: int = 0) -> EventFactory:
        """
        A factory of *event*, ``<domain>.<aggregate>.v<major>``, by its newest contract under *schemas*.

        Raises:
            ConfigurationError: there is no such contract, or it cannot be read.

        """
        folder, _dot, major = event.rpartition(".")
        paths = list((schemas / folder.replace(".", "/")).glob(f"{major}.*.json"))
        versions = {path: path.stem.rpartition(".")[2] for path in paths}
        minors = {int(minor): path for path, minor in versions.items() if minor.isdecimal()}
        if not minors:
            raise ConfigurationError(f"there is no contract of {event}", where=str(schemas), fix="name a topic")
        return cls(load_contract(minors[max(minors)]), seed)

    def entity(self, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        A valid entity, with *fields* as they are given.

        Raises:
            ContractViolationError: with these fields it is not valid; names the place, never a value.
            ConfigurationError: no instance of the contract was found.

        """
        entity: dict[str, Any] = self.value(EventKind.CREATED, fields)["after"]
        return entity

    def value(self, kind: EventKind | str = EventKind.CREATED, fields: Mapping[str, Any] | None = None) -> Value:
        """
        A valid value of a whole event, with *fields* in `after`; of a deleted one, in `before`.

        Raises:
            ContractViolationError: with these fields it is not valid; names the place, never a value.
            ConfigurationError: no instance of the contract was found.

        """
        fault = ""
        for attempt in range(_TRIES):
            try:
                value = self._value(EventKind(kind), fields or {}, readable=attempt < _TRIES // 2)
            except LookupError:
                continue
            if self._validator.is_valid(value):
                return value
            error = next(self._validator.iter_errors(value))
            fault = f"{pointer_of(error.instance_path)}: {error.message}"
        if fields and fault:
            raise ContractViolationError(f"with these fields it is not valid: {fault}")
        where = str(self._contract.path)
        raise ConfigurationError("no valid instance was found", where=where, fix="give examples, or the fields")

    def event(
        self,
        kind: EventKind | str = EventKind.CREATED,
        fields: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the word that events use
        version: int = 1,
    ) -> DomainEvent:
        """
        A valid event, as a consumer's handler gets it.

        *id* is the aggregate's; left out, it is the entity's field of that name, or a new one.

        Raises:
            ContractViolationError: with these fields it is not valid; names the place, never a value.
            ConfigurationError: no instance of the contract was found.

        """
        contract, value = self._contract, self.value(kind, fields)
        own = (value["after"] or value["before"]).get("id") if id is None else id
        self._made += 1
        return DomainEvent(
            identity=Identity("test", contract.aggregate, (self._uuid() if own is None else str(own),)),
            domain=contract.domain,
            kind=EventKind(kind),
            major=contract.major,
            version=version,
            position=self._made,
            time=_time(self._made),
            source_uri="urn:rowcast:source:test",
            dataschema=contract.dataschema,
            **value,
        )

    def _value(self, kind: EventKind, fields: Mapping[str, Any], *, readable: bool) -> Value:
        entity = {**self._fresh(readable=readable), **fields}
        above = {name: [self._uuid()] for name in self._contract.ancestors}
        value: Value = {"after": entity, "before": None, "ancestors": above, "context": {}}
        if kind is EventKind.DELETED:
            value |= {"after": None, "before": entity}
        elif kind is EventKind.UPDATED:
            value["before"] = self._former(entity, readable=readable)
        return value

    def _former(self, entity: Mapping[str, Any], *, readable: bool) -> dict[str, Any]:
        other = self._fresh(readable=readable)
        names = [name for name in other if name != "id" and name in entity and other[name] != entity[name]]
        changed = self._random.sample(names, self._random.randint(1, len(names))) if names else []
        return {name: other[name] for name in sorted(changed)}

    def _fresh(self, *, readable: bool) -> dict[str, Any]:
        # Where examples and parts do not fit together, the values that the comparison of schemas tries may.
        required = self._entity.get("required", [])
        made = {}
        for name in self._contract.properties:
            if name in required or self._random.random() < _OPTIONAL:
                node = self._entity.child("properties", name)
                made[name] = self._of(node) if readable else self._instances.random([node])
        return made

    def _of(self, node: Node, depth: int = 0) -> Any:
        schema = node.schema
        examples = schema.get("examples")
        free = not schema.keys() & {"enum", "const", "pattern"}
        if free and schema.get("format") == "uuid":
            return self._uuid()
        if free and schema.get("format") == "date-time":
            return _time(self._random.randrange(10**8))
        if isinstance(examples, list) and examples:
            return self._random.choice(examples)
        if depth >= _DEPTH_MAX:
            simplest = self._instances.first([node])
            return simplest[0] if simplest else self._instances.random([node])
        return self._composed(node, depth + 1)

    def _composed(self, node: Node, depth: int) -> Any:
        # Objects and lists from their parts, so that examples further down are used too, and large ones stay small.
        other = node.document.resolve(node.get("$ref")) if node.has("$ref") else None
        if node.has("oneOf"):
            other = self._random.choice(node.children("oneOf"))
        if other is not None:
            return self._of(other, depth)
        types = node.get("type", "object" if node.has("properties") else "")
        chosen = self._random.choice(types) if isinstance(types, list) else types
        if chosen == "null":
            return None
        if chosen == "object" and node.has("properties"):
            wanted = [name for name in node.schema["properties"] if self._wanted(name, node, depth)]
            return {name: self._of(node.child("properties", name), depth) for name in wanted}
        if chosen == "object" and node.has("additionalProperties"):
            return {name: self._of(node.child("additionalProperties"), depth) for name in ("a", "b")}
        if chosen == "array" and node.has("items"):
            length = int(node.get("minItems", 0)) + self._random.randint(0, 2)
            return [self._of(node.child("items"), depth) for _ in range(length)]
        return self._instances.random([node])

    def _wanted(self, name: str, node: Node, depth: int) -> bool:
        return name in node.get("required", []) or self._random.random() < _OPTIONAL / depth

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def _time(seconds: int) -> str:
    return f"{_START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
