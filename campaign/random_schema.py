"""
Random schemas of aggregates, and a plain oracle of what is to be published of their rows.

The oracle knows the declared schema and the rows, works out every aggregate's state from scratch after each
transaction, and compares two of these: nothing of the core's own bookkeeping is used.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rowcast.identity import join_id_parts
from rowcast.sources.field import ConditionDefinition, FieldDefinition

Row = dict[str, Any]
Rows = dict[tuple[str, tuple[Any, ...]], Row]
State = tuple[dict[str, Any], dict[str, Any]]
SHORT = 1_000
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
    """
    A random aggregate type: a table, its key, and what of it is published, under which conditions.

    Or a table that is *embedded* in another one, which is its parent: its rows stand in *place* there, ordered by the
    columns *order* and its key. Or a link table, *through* which its parent is bound: its rows name one of *other* too,
    in *other_link*.
    """

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
    short: frozenset[str] = frozenset()  # fields of which the contract takes no long text
    through: Type | None = field(default=None, compare=False, repr=False)
    other: Type | None = None
    other_link: tuple[str, ...] = ()
    place: str = ""
    order: tuple[str, ...] = ()
    embedded: list[Type] = field(default_factory=list, compare=False, repr=False)  # whose parent this is

    @property
    def is_aggregate(self) -> bool:
        """Whether it is an aggregate type, and neither embedded in another nor a link table."""
        return not self.place and self.other is None

    def id_of(self, row: Row) -> str:
        """The id text of a row."""
        return join_id_parts([str(row[name]) for name in self.key])

    def parent_id(self, row: Row) -> str | None:
        """The id text of the parent that a row names."""
        return _named(row, self.link)

    def other_id(self, row: Row) -> str | None:
        """The id text of the other one that a row of a link table names."""
        return _named(row, self.other_link)

    def counts(self, row: Row) -> bool:
        """Whether a row stands for an aggregate."""
        for each in self.where:
            if (row[each.place] in each.values) is each.negated:
                return False
        return not self.soft_delete or row[self.soft_delete] in (None, False)

    def refuses(self, entity: Row) -> bool:
        """Whether the contract does not take *entity*."""
        return any(isinstance(entity[name], str) and len(entity[name]) > SHORT for name in self.short)

    def entity(self, row: Row, below: Below) -> Row:
        """What is published of a row, with those *below* it of each embedded table."""
        entity = {name: self._value(each, row) for name, each in self.fields.items()}
        for each in self.embedded:
            rows = sorted(filter(each.counts, below(each, self.id_of(row))), key=each._sorting)
            entity[each.place] = [each.entity(one, below) for one in rows]
        return entity

    def _sorting(self, row: Row) -> list[tuple[int, Any]]:
        """Numbers as numbers, texts code point by code point, NULL last."""
        values = [(row[name], self.columns[name]) for name in (*self.order, *self.key)]
        return [(1, 0) if each is None else (0, each if type_ == "text" else Decimal(each)) for each, type_ in values]

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


def _named(row: Row, link: tuple[str, ...]) -> str | None:
    values = [row[name] for name in link]
    return None if any(each is None for each in values) else join_id_parts([str(each) for each in values])


Parents = Callable[[Type, str], set[str]]  # of the aggregate of a type with this id
Below = Callable[[Type, str], Sequence[Row]]  # the rows of an embedded table below the row with this key


def random_schema(rng: random.Random, prefix: str = "", rank: int = 0) -> list[Type]:
    """
    One to four aggregate types, parents first, each followed by what is embedded in it.

    Keys of one or two columns, links of the same types; names begin with *prefix*, ranks with *rank*.
    """
    types: list[Type] = []
    for number in range(rng.randint(1, 4)):
        parents = [each for each in types if each.is_aggregate]
        parent = rng.choice([None, *parents]) if parents else None
        linked = parent is not None and rng.random() < 0.3
        made = random_table(rng, f"{prefix}t{number}", rank + number, None if linked else parent)
        if linked and parent is not None:
            made.parent, made.through = parent, link_table(made, parent)
        else:
            add_conditions(rng, made)
        made.above = [] if parent is None else [parent.name, *parent.above]
        types += [made] if made.through is None else [made, made.through]
        for place in range(rng.choice([0, 0, 0, 1, 2])):
            types += random_embedded(rng, made, place, 1)
    return types


def random_table(rng: random.Random, name: str, rank: int, parent: Type | None) -> Type:
    """A table whose rows name those of *parent*."""
    key = tuple(f"k{number}" for number in range(rng.choice([1, 1, 2])))
    columns = {name: rng.choice(["text", "integer"]) for name in key}
    link = tuple(f"up{number}" for number in range(len(parent.key))) if parent else ()
    if parent:
        columns |= {name: parent.columns[up] for name, up in zip(link, parent.key, strict=True)}
    columns |= {f"c{number}": rng.choice(list(VALUES)) for number in range(rng.randint(1, 5))}
    return Type(name, rank, columns, key, parent, link, random_fields(rng, columns, key))


def add_conditions(rng: random.Random, made: Type) -> None:
    """Sometimes only some rows count."""
    if rng.random() < 0.4:
        place = rng.choice([name for name in made.columns if name[0] == "c"])
        if made.columns[place] not in ("jsonb", "numeric(10,2)"):
            chosen = tuple(rng.sample(VALUES[made.columns[place]], 2))
            made.where = (ConditionDefinition(place=place, values=chosen, negated=rng.random() < 0.5),)
    if rng.random() < 0.3:
        made.columns["gone"] = "boolean"
        made.soft_delete = "gone"


def link_table(child: Type, parent: Type) -> Type:
    """A table of which each row binds an aggregate of type *child* with one of type *parent*."""
    link = tuple(f"up{number}" for number in range(len(child.key)))
    other_link = tuple(f"to{number}" for number in range(len(parent.key)))
    named = [*(child.columns[name] for name in child.key), *(parent.columns[name] for name in parent.key)]
    columns = {"k0": "integer", **dict(zip((*link, *other_link), named, strict=True))}
    return Type(
        f"{child.name}_link", child.rank, columns, ("k0",), child, link, {}, other=parent, other_link=other_link
    )


def random_embedded(rng: random.Random, above: Type, number: int, level: int) -> list[Type]:
    """A table that is embedded in that of *above*, and sometimes one in it."""
    made = random_table(rng, f"{above.name}_e{number}", above.rank, above)
    made.place = f"e{number}"
    add_conditions(rng, made)
    orders = [name for name, type_ in made.columns.items() if name[0] == "c" and type_ in ("integer", "text")]
    if orders and rng.random() < 0.5:
        made.order = (rng.choice(orders),)
    above.embedded.append(made)
    return [made, *(random_embedded(rng, made, 0, level + 1) if level < 3 and rng.random() < 0.3 else [])]


def random_fields(rng: random.Random, columns: dict[str, str], key: tuple[str, ...]) -> dict[str, FieldDefinition]:
    """Declarations of some columns under their own or another name."""
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
    for name in (*made.link, *made.other_link):
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

    def below(table: Type, id_text: str) -> list[Row]:
        return [row for (name, _), row in rows.items() if name == table.name and table.parent_id(row) == id_text]

    def parents(made: Type, id_text: str) -> set[str]:
        if made.through is None:
            named = [made.parent_id(counted[made.name, id_text])]
        else:
            named = [made.through.other_id(row) for row in below(made.through, id_text)]
        return {each for each in named if each is not None}

    for made in filter(lambda each: each.is_aggregate, types):
        for (name, id_text), row in counted.items():
            if name == made.name:
                states[made.rank, id_text] = (made.entity(row, below), ancestors(made, id_text, counted, parents))
    return states


def ancestors(made: Type, id_text: str, counted: Container[tuple[str, str]], parents: Parents) -> dict[str, Any]:
    """The ids of all above, by type; None where one of them is not there."""
    found: dict[str, Any] = {}
    below = made
    above: list[str] | None = [id_text]
    while below.parent is not None:
        if above:
            ids = {up for each in above for up in parents(below, each)}
            above = sorted(ids) if all((below.parent.name, each) in counted for each in ids) else None
        found[below.parent.name] = above
        below = below.parent
    return found


def expected(types: list[Type], history: list[tuple[int, Rows]]) -> list[tuple[str, str, int, str, Any, Any]]:
    """(aggregate, id, LSN, kind, after, ancestors) of every event, in order."""
    events = []
    names = {made.rank: made.name for made in types if made.is_aggregate}
    before: dict[tuple[int, str], State] = {}
    for lsn, rows in history:
        after = truth(types, rows)
        for key in sorted({*before, *after}):
            old, new = before.get(key), after.get(key)
            if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
                continue
            kind = "created" if old is None else "deleted" if new is None else "updated"
            entity, above = new or (None, (old or ({}, {}))[1])
            events.append((names[key[0]], key[1], lsn, kind, entity, above))
        before = after
    return events
