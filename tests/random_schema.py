"""
Random schemas of aggregates, and a plain oracle of what is to be published of their rows.

The oracle knows the declared schema and the rows, works out every aggregate's state from scratch after each
transaction, and compares two of these: nothing of the core's own bookkeeping is used.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from rowcast.identity import join_id_parts
from rowcast.sources.field import ConditionDefinition, FieldDefinition

Row = dict[str, Any]
Rows = dict[tuple[str, tuple[Any, ...]], Row]
State = tuple[dict[str, Any], dict[str, Any]]
TEXTS = ["a", "b", "", "a,b", "~", "ü/%2C", " "]
# By type: values as the connector writes them.
VALUES: dict[str, list[Any]] = {
    "text": [*TEXTS, None],
    "integer": [0, 1, -7, None],
    "boolean": [True, False, None],
    "numeric(10,2)": ["1.50", "0.00", None],
    "jsonb": ['{"state": "on", "list": [1, null]}', '{"state": null}', "[]", "null", None],
}


@dataclass
class Type:
    """A random aggregate type: a table, its key, and what of it is published, under which conditions."""

    name: str
    rank: int
    columns: dict[str, str]
    key: tuple[str, ...]
    parent: Type | None
    link: tuple[str, ...]
    fields: dict[str, FieldDefinition]
    where: tuple[ConditionDefinition, ...] = ()
    soft_delete: str = ""
    above: list[str] = field(default_factory=list)

    def id_of(self, row: Row) -> str:
        """The id text of a row."""
        return join_id_parts([str(row[name]) for name in self.key])

    def parent_id(self, row: Row) -> str | None:
        """The id text of the parent that a row names."""
        values = [row[name] for name in self.link]
        return None if any(each is None for each in values) else join_id_parts([str(each) for each in values])

    def counts(self, row: Row) -> bool:
        """Whether a row stands for an aggregate."""
        for each in self.where:
            if (row[each.place] in each.values) is each.negated:
                return False
        return not self.soft_delete or row[self.soft_delete] in (None, False)

    def entity(self, row: Row) -> dict[str, Any]:
        """What is published of a row."""
        return {name: self._value(each, row) for name, each in self.fields.items()}

    def _value(self, declared: FieldDefinition, row: Row) -> Any:
        if declared.place is None:
            return declared.constant
        column, _, member = declared.place.removeprefix("/").partition("/")
        value = row[column]
        if self.columns[column] == "jsonb":
            value = None if value is None else json.loads(value)
        if member:
            value = value.get(member) if isinstance(value, dict) else None
        if declared.cast == "text" and value is not None:
            value = str(value)
        return declared.default if value is None and declared.default is not None else value


def random_schema(rng: random.Random) -> list[Type]:
    """One to four types, parents first; keys of one or two columns, links of the same types."""
    types: list[Type] = []
    for rank in range(rng.randint(1, 4)):
        key = tuple(f"k{number}" for number in range(rng.choice([1, 1, 2])))
        columns = {name: rng.choice(["text", "integer"]) for name in key}
        parent = rng.choice([None, *types]) if types else None
        link = tuple(f"up{number}" for number in range(len(parent.key))) if parent else ()
        if parent:
            columns |= {name: parent.columns[up] for name, up in zip(link, parent.key, strict=True)}
        columns |= {f"c{number}": rng.choice(list(VALUES)) for number in range(rng.randint(1, 5))}
        made = Type(f"t{rank}", rank, columns, key, parent, link, random_fields(rng, columns, key))
        if rng.random() < 0.4:
            place = rng.choice([name for name in columns if name[0] == "c"])
            if columns[place] not in ("jsonb", "numeric(10,2)"):
                chosen = tuple(rng.sample(VALUES[columns[place]], 2))
                made.where = (ConditionDefinition(place=place, values=chosen, negated=rng.random() < 0.5),)
        if rng.random() < 0.3:
            columns["gone"] = "boolean"
            made.soft_delete = "gone"
        made.above = [] if parent is None else [parent.name, *parent.above]
        types.append(made)
    return types


def random_fields(rng: random.Random, columns: dict[str, str], key: tuple[str, ...]) -> dict[str, FieldDefinition]:
    fields = {name: FieldDefinition(place=name) for name in key if rng.random() < 0.8}
    for name, type_ in columns.items():
        if name in key or rng.random() < 0.2:
            continue
        declared = FieldDefinition(place=name)
        if type_ == "integer" and rng.random() < 0.4:
            declared = FieldDefinition(place=name, cast="text")
        elif type_ == "text" and rng.random() < 0.4:
            declared = FieldDefinition(place=name, default="none")
        fields[rng.choice([name, f"as_{name}"])] = declared
    return {**fields, "kind": FieldDefinition(constant="thing")}


def random_row(rng: random.Random, made: Type) -> Row:
    """A row of few different keys, links and values, so that they meet."""
    row = {name: rng.choice(VALUES[type_]) for name, type_ in made.columns.items()}
    for name in made.key:
        row[name] = rng.choice([each for each in VALUES[made.columns[name]][:3] if each is not None])
    for name in made.link:
        row[name] = rng.choice([*VALUES[made.columns[name]][:3], None])
    return row


def truth(types: list[Type], rows: Rows) -> dict[tuple[int, str], State]:
    """What every aggregate should be published as, by rank and id."""
    counted = {
        (made.name, made.id_of(row)): row
        for made in types
        for (name, _), row in rows.items()
        if name == made.name and made.counts(row)
    }
    states = {}
    for made in types:
        for (name, id_text), row in counted.items():
            if name == made.name:
                states[made.rank, id_text] = (made.entity(row), ancestors(made, row, counted))
    return states


def ancestors(made: Type, row: Row, counted: dict[tuple[str, str], Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    below, current = made, row
    while below.parent is not None:
        id_text = below.parent_id(current)
        parent = counted.get((below.parent.name, id_text)) if id_text is not None else None
        rest = [below.parent.name, *below.parent.above]
        if id_text is None:
            return {**found, **{name: [] for name in rest}}
        if parent is None:
            return {**found, **dict.fromkeys(rest)}
        found[below.parent.name] = [id_text]
        below, current = below.parent, parent
    return found


def expected(types: list[Type], history: list[tuple[int, Rows]]) -> list[tuple[str, str, int, str, Any, Any]]:
    """(aggregate, id, LSN, kind, after, ancestors) of every event, in order."""
    events = []
    before: dict[tuple[int, str], State] = {}
    for lsn, rows in history:
        after = truth(types, rows)
        for key in sorted({*before, *after}):
            old, new = before.get(key), after.get(key)
            if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
                continue
            kind = "created" if old is None else "deleted" if new is None else "updated"
            entity, above = new or (None, (old or ({}, {}))[1])
            events.append((types[key[0]].name, key[1], lsn, kind, entity, above))
        before = after
    return events
