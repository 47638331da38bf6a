"""
The AsyncAPI 3.1 document of the events: one channel and one message for each topic.

Deterministic. Payloads are the derived schemas in the dialect that AsyncAPI demands, JSON Schema draft-07: `$defs`
become schemas of the document, and what stands beside a `$ref` is kept. Of the profile of contracts only the formats
`uuid` and `duration` are unknown to that dialect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rowcast.contracts.contract import Contract
from rowcast.deprecation import KEYWORD
from rowcast.event import EventKind, event_type
from rowcast.topics import domain_topic

# A Kafka header by its pattern or description; the worker sends all of them.
_HEADERS: dict[str, dict[str, str]] = {
    "content-type": {"const": "application/json"},
    "ce_specversion": {"const": "1.0"},
    "ce_id": {"description": "<aggregate>:<id text>:<version>; with ce_source, unique for ever."},
    "ce_source": {"description": "Where the entity lives.", "format": "uri-reference"},
    "ce_subject": {"description": "The id text of the aggregate, the same as the record's key."},
    "ce_time": {"description": "When the change was committed.", "format": "date-time"},
    "ce_sequence": {"description": "The version of the aggregate.", "pattern": "^[0-9]{20}$"},
    "ce_rowcastsource": {"description": "The name of the source."},
    "ce_rowcastposition": {"description": "The position of the transaction.", "pattern": "^[0-9]{20}$"},
}
_TRACE = {"description": "W3C trace context, where the writer gave one.", "type": "string"}
# In the events of a deprecated major, from the day on which it was applied.
_DEPRECATION = {
    "ce_deprecated": {"type": "string", "const": "true"},
    "ce_deprecationfrom": {"type": "string", "format": "date-time"},
    "ce_deprecationsunset": {"type": "string", "format": "date-time"},
    "ce_deprecationmigration": {"type": "string", "format": "uri"},
}
_DOCUMENT = {"$schema", "$id", "$defs"}
_ONE, _LIST, _MAP = ("items", "additionalProperties"), ("oneOf",), ("properties",)


def asyncapi_document(
    contracts: Iterable[Contract], consumers: Mapping[str, list[str]], *, title: str, version: str
) -> dict[str, Any]:
    """
    The document about *contracts*, the newest of each major; *consumers* are known apps by topic.

    *title* and *version* are those of the document.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for contract in contracts:
        topic = domain_topic(contract.domain, contract.aggregate, contract.major)
        names = {name: f"{topic}.{_plain(name, at)}" for at, name in enumerate(contract.entity.get("$defs", {}), 1)}
        value = contract.value_schema()
        schemas[topic] = _converted({key: part for key, part in value.items() if key not in _DOCUMENT}, names)
        if contract.deprecation is not None:
            schemas[topic]["deprecated"] = True
        schemas |= {names[name]: _converted(part, names) for name, part in value.get("$defs", {}).items()}
        messages[topic] = _message(contract, topic)
        named = {"event": {"$ref": f"#/components/messages/{topic}"}}
        for stated in contract.stated():
            name = f"{topic}.stated.{stated.event}"
            schemas |= _stated_schemas(stated, topic, name)
            messages[name] = _stated_message(contract, stated, messages[topic], name)
            named[f"stated.{stated.event}"] = {"$ref": f"#/components/messages/{name}"}
        known: dict[str, Any] = {"x-consumers": consumers[topic]} if consumers.get(topic) else {}
        if contract.deprecation is not None:
            known[KEYWORD] = contract.entity[KEYWORD]
        channels[topic] = {
            "address": topic,
            "title": str(contract.entity.get("title", topic)),
            "description": str(contract.entity.get("description", "")),
            "messages": named,
            "bindings": {"kafka": {"topic": topic}},
            **known,
        }
        operations[f"send.{topic}"] = {"action": "send", "channel": {"$ref": f"#/channels/{topic}"}}
    return {
        "asyncapi": "3.1.0",
        "info": {"title": title, "version": version, "description": "Written by `rowcast schemas asyncapi`."},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _message(contract: Contract, topic: str) -> dict[str, Any]:
    kinds = [event_type(contract.domain, contract.aggregate, kind, contract.major) for kind in EventKind]
    headers: dict[str, Any] = {name: {"type": "string", **part} for name, part in _HEADERS.items()}
    optional: dict[str, Any] = {"ce_traceparent": _TRACE}
    headers["ce_type"] = {"type": "string", "enum": kinds}
    headers["ce_dataschema"] = {
        "type": "string",
        "description": "The schema of the value; a newer minor version may come at any time.",
        "examples": [contract.dataschema],
    }
    if contract.deprecation is not None:
        optional |= _DEPRECATION
    examples = [
        {"name": path.stem, "payload": json.loads(path.read_text(encoding="utf-8"))}
        for path in contract.examples("accepted")
    ]
    return {
        "name": topic,
        "title": f"{contract.entity.get('title', topic)} ({contract.version})",
        "summary": "One version of one aggregate.",
        "contentType": "application/json",
        "headers": {"type": "object", "required": sorted(headers), "properties": {**headers, **optional}},
        "payload": {"$ref": f"#/components/schemas/{topic}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": "The id text of the aggregate."}}},
        **({"examples": examples} if examples else {}),
    }


def _stated_schemas(stated: Contract, topic: str, name: str) -> dict[str, Any]:
    """The payload of a stated event, *name*: that of the entity's events, and data."""
    own = {each: f"{name}.{_plain(each, number)}" for number, each in enumerate(stated.entity.get("$defs", {}), 1)}
    data = _converted(stated.value_schema()["properties"]["data"], own)
    told = {"title": str(stated.entity.get("title", name)), "description": str(stated.entity.get("description", ""))}
    payload = {
        "allOf": [{"$ref": f"#/components/schemas/{topic}"}],
        "type": "object",
        "required": ["data"],
        "properties": {"data": {**data, **told}},
    }
    return {
        name: payload,
        **{own[each]: _converted(part, own) for each, part in stated.entity.get("$defs", {}).items()},
    }


def _stated_message(contract: Contract, stated: Contract, plain: Mapping[str, Any], name: str) -> dict[str, Any]:
    headers = dict(plain["headers"]["properties"])
    headers["ce_type"] = {
        "type": "string",
        "const": event_type(contract.domain, contract.aggregate, stated.event, contract.major),
    }
    headers["ce_dataschema"] = {**headers["ce_dataschema"], "examples": [contract.stated_dataschema(stated)]}
    message = {
        **plain,
        "name": name,
        "title": f"{stated.entity.get('title', name)} ({stated.version})",
        "summary": "What a service stated of one aggregate, with its state.",
        "headers": {**plain["headers"], "properties": headers},
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }
    message.pop("examples", None)
    return message


def _plain(name: str, number: int) -> str:
    # Names of components are ASCII letters, digits and `.-_`; a number keeps those apart that become the same.
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f"definition-{number}"


def _converted(schema: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = {}
    for keyword, value in schema.items():
        if keyword in _ONE:
            result[keyword] = _converted(value, names)
        elif keyword in _LIST:
            result[keyword] = [_converted(each, names) for each in value]
        elif keyword in _MAP:
            result[keyword] = {name: _converted(each, names) for name, each in value.items()}
        else:
            result[keyword] = value
    if "$ref" not in result:
        return result
    reference = {"$ref": f"#/components/schemas/{names[result.pop('$ref').removeprefix('#/$defs/')]}"}
    # In draft-07 a reference hides what stands beside it.
    return {**result, "allOf": [reference]} if result else reference
