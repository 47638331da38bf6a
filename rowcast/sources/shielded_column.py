"""
Which columns of a table's rows hold values that may not be published as they are, and what becomes of them.

Pure. The same answer is used when a source is planned and when a worker takes a row out of the change log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rowcast.contracts.personal_data import Classification, Handling, Treatment, is_needed, item, member, together
from rowcast.sources.definition import AggregateDefinition, FormerMajor, SourceDefinition
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.field import FieldDefinition
from rowcast.sources.place import parse_place


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRules:
    """
    What the fields of a table's rows, described by the schema *entity*, are and what is done with which class.

    *at* is its dotted field below that of the aggregate, empty for the root table. *links* are the places of ids and
    links, which are published whatever they hold; *reads* has what else looks at values as they are: what, and the
    place. No rules: nothing is hidden.
    """

    table: str = ""
    at: str = ""
    entity: Mapping[str, Any] = field(default_factory=dict)
    handlings: Mapping[str, Handling] = field(default_factory=dict)
    fields: Mapping[str, FieldDefinition] = field(default_factory=dict)
    dropped: Mapping[str, FieldDefinition] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    reads: tuple[tuple[str, str], ...] = ()

    def treatment(self, name: str) -> Treatment:
        """The treatment of the property *name*: as its field says for the whole of it, else as its classes do."""
        declared = self.fields.get(name) if name not in self.dropped else self.dropped[name]
        if declared is not None and declared.pii is not None:
            return Treatment(declared.pii)
        return Classification(self.entity, self.handlings).of(name)

    def shielded(self) -> dict[str, Treatment]:
        """The treatment of each column that needs one, by column: of the column's value in the form of events."""
        roots: dict[str, Treatment] = {}
        for name, each in (*self.fields.items(), *self.dropped.items()):
            if each.place is None:
                continue
            handled = Treatment(each.pii) if each.pii is not None else self.treatment(name)
            if is_needed(handled):
                column, path = parse_place(each.place)
                _put(roots.setdefault(column, Treatment()), path or (), handled)
        return roots


def root_rules(aggregate: AggregateDefinition) -> RowRules:
    """The rules of the root table of *aggregate*."""
    parent = aggregate.parent
    return RowRules(
        table=aggregate.table,
        entity=aggregate.entity_schema,
        handlings=aggregate.handlings,
        fields=aggregate.fields,
        dropped=aggregate.dropped,
        links=(*aggregate.id, *(parent.columns if parent is not None and parent.through is None else ())),
        reads=_conditions(aggregate),
    )


def older_treatments(aggregate: AggregateDefinition, former: FormerMajor) -> dict[str, Treatment]:
    """The treatment of each property of an older major: by the classes of its own contract, whatever made the value."""
    classification = Classification(former.entity_schema, aggregate.handlings)
    return {name: classification.of(name) for name in former.entity_schema.get("properties", {})}


def older_dropped(aggregate: AggregateDefinition, former: FormerMajor) -> tuple[frozenset[str], frozenset[str]]:
    """The properties of an older major that are dropped as a whole, and those of them that its contract demands."""
    treatments = older_treatments(aggregate, former)
    dropped = frozenset(name for name, each in treatments.items() if together([each])[1] is Handling.DROP)
    return dropped, dropped.intersection(former.entity_schema.get("required", ()))


def embedded_rules(above: RowRules, embedded: EmbeddedDefinition) -> RowRules:
    """The rules of *embedded*, which stands in the rows that *above* is about."""
    return RowRules(
        table=embedded.table,
        at=f"{above.at}embedded.{embedded.name}.",
        entity=row_entity(above.entity, embedded),
        handlings=above.handlings,
        fields=embedded.fields,
        dropped=embedded.dropped,
        links=embedded.columns,
        reads=(*(("order", each) for each in embedded.order), *_conditions(embedded)),
    )


def _conditions(of: AggregateDefinition | EmbeddedDefinition) -> tuple[tuple[str, str], ...]:
    deleted = (("soft_delete", of.soft_delete),) if of.soft_delete else ()
    return (*(("where", each.place) for each in of.where), *deleted)


def all_rules(aggregate: AggregateDefinition) -> Iterator[RowRules]:
    """The rules of the root table and of all embedded ones."""
    waiting = [(root_rules(aggregate), aggregate.embedded)]
    while waiting:
        rules, embedded = waiting.pop()
        yield rules
        waiting += [(embedded_rules(rules, each), each.embedded) for each in embedded]


def row_entity(entity: Mapping[str, Any], embedded: EmbeddedDefinition) -> dict[str, Any]:
    """The schema of one row of *embedded* in the schema *entity* of the row above."""
    definitions = entity.get("$defs", {})
    schema = _resolved(entity.get("properties", {}).get(embedded.name), definitions)
    if not embedded.one:
        schema = _resolved(schema.get("items"), definitions)
    return {"properties": {}, **schema, "$defs": definitions}


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    for _step in range(len(definitions) + 1):  # references that lead in a circle end, too
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = definitions.get(str(schema["$ref"]).removeprefix("#/$defs/"))
    return schema if isinstance(schema, dict) else {}


def embedded_treatment(above: RowRules, embedded: EmbeddedDefinition) -> Treatment:
    """The treatment of the property that *embedded* stands in, as a whole."""
    rules = embedded_rules(above, embedded)
    required = frozenset(rules.entity.get("required", ()))
    members = {name: rules.treatment(name) for name in (*rules.fields, *rules.dropped)}
    members.update((each.name, embedded_treatment(rules, each)) for each in embedded.embedded)
    row = Treatment(members=members, required=required)
    return row if embedded.one else Treatment(items=row)


def is_hashing(definition: SourceDefinition) -> bool:
    """Whether any value of *definition* is hashed."""
    return any(
        is_needed(treatment, Handling.HASH)
        for aggregate in definition.aggregates
        for treatment in (*_of_columns(aggregate), *_of_older(aggregate))
    )


def _of_columns(aggregate: AggregateDefinition) -> Iterator[Treatment]:
    for rules in all_rules(aggregate):
        yield from rules.shielded().values()


def _of_older(aggregate: AggregateDefinition) -> Iterator[Treatment]:
    for former in aggregate.former:
        yield from older_treatments(aggregate, former).values()


def _put(root: Treatment, path: tuple[str, ...], treatment: Treatment) -> None:
    for token in path:
        # A place in a document may lie inside of what another field names.
        root = root.members.setdefault(token, Treatment())
    root.also.append(treatment)


def handling_at(roots: Mapping[str, Treatment], place: str) -> Handling:
    """What is done with the value at *place* of a row, or with something that it is a part of."""
    column, path = parse_place(place)
    known, handling = together([roots[column]] if column in roots else [])
    for token in path or ():
        if handling is not Handling.PUBLISH:
            break
        below = member(known, token)
        if token.isdecimal():
            below += [each for each in item(known, int(token)) if each not in below]
        known, handling = together(below)
    return handling
