"""
What of a contract's fields a source publishes, and how: decided by their classes of personal data before anything runs.

Pure. Nothing is published that nobody has classified, and nothing is said to be hidden that shows elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from rowcast.contracts.compatibility.document import escape
from rowcast.contracts.compatibility.validator import Judge, compiled
from rowcast.contracts.contract import Contract
from rowcast.contracts.personal_data import (
    MASK,
    NOT_PERSONAL,
    UNCLASSIFIED,
    Classification,
    Handling,
    classes_of,
    classified,
    is_needed,
    together,
    unspoken,
)
from rowcast.sources.definition import AggregateDefinition
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.field import HANDLING_FORM, FieldDefinition
from rowcast.sources.shielded_column import (
    RowRules,
    all_rules,
    embedded_rules,
    handling_at,
    root_rules,
    row_entity,
)
from rowcast.sources.source_file import AggregateEntry, SourceFile

# (JSON pointer into the contract, message, what would be accepted)
Doubt = tuple[str, str, str]
_SAMPLES = tuple(sha256(bytes([number])).hexdigest() for number in range(16))
_DEMANDED = "is dropped, but the contract demands a value"
_DONE = {Handling.DROP: "dropped", Handling.MASK: "masked", Handling.HASH: "hashed"}


def disclosed(
    fields: Mapping[str, FieldDefinition], entity: Mapping[str, Any], handlings: Mapping[str, Handling]
) -> tuple[dict[str, FieldDefinition], dict[str, FieldDefinition]]:
    """
    The fields of *entity*, the schema of a row, that are published, and those that are dropped.

    A field says in ``pii`` what is done with it as a whole, unless that is left to its parts. One that is dropped and
    demanded by the contract is null.
    """
    classification = Classification(entity, handlings)
    published: dict[str, FieldDefinition] = {}
    dropped: dict[str, FieldDefinition] = {}
    for name, declared in fields.items():
        handling = declared.pii or together([classification.of(name)])[1]
        if handling is Handling.DROP:
            dropped[name] = replace(declared, pii=handling)
            if name in entity.get("required", ()):
                published[name] = FieldDefinition(pii=Handling.PUBLISH)
        else:
            explicit = handling if declared.pii is not None or handling is not Handling.PUBLISH else None
            published[name] = replace(declared, pii=explicit)
    return published, dropped


def disclosed_embedded(
    embedded: EmbeddedDefinition, above: Mapping[str, Any], handlings: Mapping[str, Handling]
) -> EmbeddedDefinition:
    """*embedded* with the fields that are published; it stands in rows with the schema *above*."""
    entity = row_entity(above, embedded)
    fields, dropped = disclosed(embedded.fields, entity, handlings)
    inner = tuple(disclosed_embedded(each, entity, handlings) for each in embedded.embedded)
    return replace(embedded, fields=fields, dropped=dropped, embedded=inner)


def unclassified(source: SourceFile, entry: AggregateEntry, contract: Contract) -> Iterator[Doubt]:
    """The fields of *contract* of which nobody has said what they are, or what this source does with them."""
    yield from _unclassified(source, entry.fields, contract)


def _unclassified(source: SourceFile, fields: Mapping[str, FieldDefinition], contract: Contract) -> Iterator[Doubt]:
    for pointer, kind in classified(contract.entity):
        if kind == UNCLASSIFIED:
            message = "nobody has said whether it is personal data, so it is not published"
            yield f"{pointer}/x-pii", message, f"{NOT_PERSONAL}, or the class of personal data"
    for pointer in unspoken(contract.entity):
        message = "nobody has said whether this variant is personal data, so it is not published"
        yield pointer, message, f"x-pii of the field or of the variant: {NOT_PERSONAL}, or the class of personal data"
    if source.pii is None:
        return
    for name in contract.properties:
        declared = fields.get(name)
        missing = sorted(classes_of(contract.entity, name) - source.pii.keys() - {UNCLASSIFIED})
        if missing and (declared is None or declared.pii is None):
            message = f"`pii` of this source does not say what to do with {', '.join(missing)}"
            yield f"/properties/{escape(name)}", message, f"pii: {{{missing[0]}: {HANDLING_FORM.replace(', ', ' | ')}}}"


def hidden_in_stated(source: SourceFile, contract: Contract) -> Iterator[Doubt]:
    """The fields of an event that services state, with its *contract*, that this source would have to hide."""
    for pointer, kind in classified(contract.entity):
        if kind == UNCLASSIFIED:
            message = "nobody has said whether it is personal data, so it is not published"
            yield f"{pointer}/x-pii", message, f"{NOT_PERSONAL}, or the class of personal data"
        elif (source.pii or {}).get(kind, Handling.PUBLISH) is not Handling.PUBLISH:
            message = f"{kind} is not published as it is by this source, and a stated event goes out as it was stated"
            yield pointer, message, "another class, or an event without it"


def older_doubts(source: SourceFile, contract: Contract) -> Iterator[Doubt]:
    """
    The fields of an older major, with its *contract*, of which nobody has said what they are, or that cannot be hidden.

    They go by their classes alone: what the source file says of single fields is said of those of the newest major.
    """
    yield from _unclassified(source, {}, contract)
    rules = RowRules(entity=contract.entity, handlings=published_but(source))
    for name, schema in contract.entity["properties"].items():
        for _name, message, accepted in _older_misfits(name, schema, rules, contract):
            yield f"/properties/{escape(name)}", message, accepted


def published_but(source: SourceFile) -> dict[str, Handling]:
    """What *source* does with the classes that it does not publish."""
    return {name: handling for name, handling in (source.pii or {}).items() if handling is not Handling.PUBLISH}


def _older_misfits(name: str, schema: Any, rules: RowRules, contract: Contract) -> Iterator[tuple[str, str, str]]:
    handling = together([rules.treatment(name)])[1]
    if handling is Handling.PUBLISH:
        yield from _part_misfits(name, rules, contract)
    elif handling is not Handling.DROP:
        yield from _form_misfits(name, schema, handling, contract)
    elif name in rules.entity.get("required", ()) and not _judge(schema, contract)(None):
        yield name, _DEMANDED, 'a property that allows "null", or none'


def misfits(
    aggregate: AggregateDefinition, contract: Contract, keys: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, str, str]]:
    """
    What of *aggregate* is hidden in vain, or cannot be: the dotted field, the message, and what would be accepted.

    *keys* has the key columns of each table.
    """
    for rules in all_rules(aggregate):
        for name, message, accepted in _row_misfits(rules, contract, keys.get(rules.table, ())):
            yield f"{rules.at}fields.{name}", f"property {name!r} of {contract.path} {message}", accepted
    for each in aggregate.embedded:
        yield from _embedded_misfits(root_rules(aggregate), each, contract)


def _embedded_misfits(
    above: RowRules, embedded: EmbeddedDefinition, contract: Contract
) -> Iterator[tuple[str, str, str]]:
    handling = together([Classification(above.entity, above.handlings).of(embedded.name)])[1]
    if handling is not Handling.PUBLISH:
        message = f"{contract.path}: {embedded.name!r} is {_DONE[handling]}, and it is made of rows"
        yield f"{above.at}embedded.{embedded.name}", message, "classify the fields of its rows"
    for each in embedded.embedded:
        yield from _embedded_misfits(embedded_rules(above, embedded), each, contract)


def _row_misfits(rules: RowRules, contract: Contract, key: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    roots = rules.shielded()
    schemas = rules.entity["properties"]
    for name, declared in rules.fields.items():
        if name in rules.dropped:
            if not _judge(schemas[name], contract)(None):
                yield name, _DEMANDED, 'a property that allows "null", or none'
            continue
        treatment = rules.treatment(name)
        if is_needed(treatment):
            yield from _made_misfits(name, declared)
        handling = together([treatment])[1]
        if handling is not Handling.PUBLISH and declared.place is not None:
            found = handling_at(roots, declared.place)
            if found is not handling:
                yield name, f"is {_DONE[handling]}, and {declared.place} is {_DONE[found]} elsewhere", "one of them"
            yield from _form_misfits(name, schemas[name], handling, contract)
        if declared.pii is None:
            yield from _part_misfits(name, rules, contract)
    for reader, place in _clear_reads(rules, key):
        found = handling_at(roots, place)
        if found is not Handling.PUBLISH:
            accepted = "another class, another place, or `pii: publish`"
            yield _hiding(rules, place), f"is {_DONE[found]}, but {place} is also read as it is: {reader}", accepted


def _made_misfits(name: str, declared: FieldDefinition) -> Iterator[tuple[str, str, str]]:
    made = (
        f"function {declared.function!r}"
        if declared.function is not None
        else f"reference {declared.reference!r}"
        if declared.reference is not None
        else f"cast {declared.cast!r}"
        if declared.cast is not None
        else "a constant"
        if declared.place is None
        else ""
    )
    if made:
        message = f"cannot be masked or hashed before it is kept, because it is made by {made}"
        yield name, message, "publish, drop, or the value of a column or document as it is"


def _form_misfits(name: str, schema: Any, handling: Handling, contract: Contract) -> Iterator[tuple[str, str, str]]:
    forms, judge = (MASK,) if handling is Handling.MASK else _SAMPLES, _judge(schema, contract)
    # A list is concealed item by item.
    if not (all(map(judge, forms)) or all(judge([each]) for each in forms)):
        what = f"{MASK!r}" if handling is Handling.MASK else "64 hexadecimal digits"
        yield name, f"is {_DONE[handling]}, but the contract does not accept {what} there", "a plain string"


def _part_misfits(name: str, rules: RowRules, contract: Contract) -> Iterator[tuple[str, str, str]]:
    """What parts of the property *name*, and of the definitions that it may use, cannot become."""
    for pointer, schema, demanded in _parts(rules.entity, name):
        handling = rules.handlings.get(str(schema.get("x-pii")), Handling.PUBLISH)
        if handling is Handling.DROP and demanded and not _judge(schema, contract)(None):
            yield name, f"{pointer} is dropped, but the contract demands a value", 'a member that allows "null"'
        elif handling in {Handling.MASK, Handling.HASH}:
            yield from _form_misfits(name, schema, handling, contract)


def _parts(entity: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Every schema below the property *name*: its place, itself, and whether it may not be missing."""
    root = f"/properties/{escape(name)}"
    waiting: list[tuple[str, Any, bool]] = [(root, entity["properties"][name], False)]
    seen: set[str] = set()
    while waiting:
        pointer, schema, demanded = waiting.pop()
        if not isinstance(schema, dict):
            continue
        if pointer != root:
            yield pointer, schema, demanded
        required = schema.get("required", ())
        for each, inner in _mapping(schema.get("properties")).items():
            waiting.append((f"{pointer}/properties/{escape(each)}", inner, each in required))
        waiting += [
            (f"{pointer}/{word}", schema[word], False) for word in ("items", "additionalProperties") if word in schema
        ]
        waiting += [(f"{pointer}/oneOf/{place}", each, demanded) for place, each in enumerate(schema.get("oneOf", ()))]
        reference = str(schema.get("$ref", ""))
        if reference and reference not in seen:
            seen.add(reference)
            target = _mapping(entity.get("$defs")).get(reference.removeprefix("#/$defs/"))
            waiting.append((reference.removeprefix("#"), target, demanded))


def _judge(schema: Any, contract: Contract) -> Judge:
    return compiled({"$defs": contract.entity.get("$defs", {}), "allOf": [schema]})


def _clear_reads(rules: RowRules, key: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Who reads which place of a row as it is."""
    yield from (("the id or a link, which record keys hold", each) for each in rules.links)
    yield from (("the key of the table", each) for each in key)
    yield from rules.reads
    for name, each in rules.fields.items():
        if each.pii is None or each.pii is Handling.PUBLISH:
            yield from ((f"field {name!r}", place) for place in each.places)


def _hiding(rules: RowRules, place: str) -> str:
    """The property because of which the value at *place* is hidden."""
    for name, each in (*rules.dropped.items(), *rules.fields.items()):
        one = replace(rules, fields={name: each}, dropped={})
        if handling_at(one.shielded(), place) is not Handling.PUBLISH:
            return name
    return next(iter(rules.fields))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
