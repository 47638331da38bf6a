"""
The validators that judge an instance: jsonschema-rs, and jsonschema as the reference; formats are asserted.

Both have to agree. The reference is slow to import, so it is asked last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jsonschema_rs

from rowcast.contracts.compatibility.document import ONE_SCHEMA, SCHEMA_LISTS, SCHEMA_MAPS, SchemaDocument

# What both validators check; any other name is an annotation to at least one of them.
FORMATS = frozenset(
    [
        "date",
        "date-time",
        "duration",
        "email",
        "hostname",
        "idn-email",
        "idn-hostname",
        "ipv4",
        "ipv6",
        "iri",
        "iri-reference",
        "json-pointer",
        "regex",
        "relative-json-pointer",
        "time",
        "uri",
        "uri-reference",
        "uri-template",
        "uuid",
    ]
)
Judge = Callable[[Any], bool]
_IN_PLACE = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is not part of the document")


def compiled(schema: Any) -> Judge:
    """
    The compiled validator of *schema*.

    Raises:
        ValueError: the schema is none, or refers to what is not in it.

    """
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, retriever=_refuse).is_valid


def _reference(schema: Any) -> Judge:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # An empty registry: nothing is fetched.
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER, registry=Registry())

    def judge(value: Any) -> bool:
        return bool(validator.is_valid(value))

    return judge


@lru_cache(maxsize=64)
def _format_judges(name: str) -> tuple[Judge, Judge]:
    return compiled({"format": name}), _reference({"format": name})


def format_verdict(name: str, value: str) -> bool | None:
    """Whether *value* has the format *name*; None when the validators differ."""
    if name not in FORMATS:
        return True if compiled({"format": name})(value) else None
    first, second = _format_judges(name)
    verdict = first(value)
    return verdict if second(value) is verdict else None


class Judges:
    """Who confirms that a writer emits an instance, and that a reader rejects it."""

    def __init__(self, document: SchemaDocument) -> None:
        self.document = document
        self._plain = compiled(document.root)
        self._closed = [compiled(closed(document.root, strictly=strictly)) for strictly in (False, True)]
        self._references: list[Judge] | None = None

    def accepts(self, value: Any) -> bool:
        """Whether *value* is valid, as the fast validator says."""
        return self._plain(value)

    def emitted(self, value: Any) -> bool:
        """Whether a writer surely may emit *value*, as the fast validator says."""
        return self._plain(value) and all(judge(value) for judge in self._closed)

    def confirms(self, value: Any, *, emitted: bool) -> bool:
        """Whether the reference says the same: *emitted* by a writer, or rejected by a reader."""
        if self._references is None:
            root = self.document.root
            shapes = [root, closed(root, strictly=False), closed(root, strictly=True)]
            self._references = [_reference(shape) for shape in shapes]
        try:
            if emitted:
                return all(judge(value) for judge in self._references)
            return not self._references[0](value)
        except Exception:  # noqa: BLE001 - the reference fails on patterns and references of its own kind: not confirmed
            return False


def closed(schema: Any, *, strictly: bool) -> Any:
    """
    *schema* for a writer that emits declared fields only.

    Objects with `properties` admit no others. *strictly*: neither does any object that does not say what it admits.
    """
    if isinstance(schema, list):
        return [closed(each, strictly=strictly) for each in schema]
    if schema is True and strictly:
        return {"additionalProperties": False}
    return _copied(schema, strictly=strictly) if isinstance(schema, dict) else schema


def _copied(schema: dict[str, Any], *, strictly: bool) -> dict[str, Any]:
    copy = dict(schema)
    for keyword, value in schema.items():
        if keyword in ONE_SCHEMA or keyword in SCHEMA_LISTS:
            copy[keyword] = closed(value, strictly=strictly)
        elif keyword in SCHEMA_MAPS and isinstance(value, dict):
            copy[keyword] = {name: closed(each, strictly=strictly) for name, each in value.items()}
    if "additionalProperties" not in schema and ("properties" in schema or strictly):
        # Where other schemas hold for the same value, what they declare counts too.
        beside = "properties" not in schema and any(keyword in schema for keyword in _IN_PLACE)
        copy["unevaluatedProperties" if beside else "additionalProperties"] = False
    elif strictly and schema["additionalProperties"] is True:
        copy["additionalProperties"] = False
    return copy
