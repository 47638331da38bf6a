"""
Random schemas of aggregates, and a plain oracle of what is to be published of their rows.

The oracle knows the declared schema and the rows, works out every aggregate's state from scratch after each
transaction, and compares two of these: nothing of the core's own bookkeeping is used.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rowcast.identity import join_id_parts
from rowcast.sources.definition import ParentDefinition, ThroughDefinition
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.field import ConditionDefinition, FieldDefinition

Row = dict[str, Any]
Rows = dict[tuple[str, tuple[Any, ...]], Row]
# What is published of an aggregate, or REFUSED: it stays what it was.
State = tuple[dict[str, Any], dict[str, Any]] | None
REFUSED: State = None
TEXTS = ["a", "b", "", "a,b", "~", "ü/%2C", " "]
# By type: values as the connector writes them.
VALUES: dict[str, list[Any]] = {
    "text": [*TEXTS, None],
    "integer": [0, 1, -7, None],
    "bigint": [*range(7), None],
    "boolean": [True, False, None],
    "numeric(10,2)": ["1.50", "0.00", "10.00", None],
    "jsonb": ['{"state": "on", "list": [1, null]}', '{"state": null}', "[]", "null", None],
}
PLAIN = [each for each in VALUES if each != "bigint"]
DOCUMENT = "doc"
# The ids in documents; a number and its text are one id.
DOCUMENT_IDS: list[Any] = ["a", "b,c", 1, "1"]
Named = list[tuple[str, list[Any]]]


@dataclass
class Table:
    """
    A random table, its key, and by which columns (*link*) a row names what it belongs to.

    *links* are the types and values of these; a document column has an id in it.
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    link: tuple[str, ...]
    links: Named
    fields: dict[str, FieldDefinition] = field(default_factory=dict)
    where: tuple[ConditionDefinition, ...] = ()
    soft_delete: str = ""
    embedded: list[Embedded] = field(default_factory=list)

    def named(self) -> Named:
        """How rows of other tables name a row: types and some values of its key."""
        return [(self.columns[name], self.values(name)) for name in self.key]

    def values(self, name: str) -> list[Any]:
        """What stands in a column of a key or link: few values, so that rows meet."""
        if name in self.link:
            return self.links[self.link.index(name)][1]
        values = VALUES[self.columns[name]]
        return [each for each in (values if self.columns[name] == "bigint" else values[:3]) if each is not None]

    def key_of(self, row: Row) -> tuple[Any, ...]:
        """The values of a row's key."""
        return tuple(row[name] for name in self.key)

    def counts(self, row: Row) -> bool:
        """Whether a row counts."""
        for each in self.where:
            if (row[each.place] in each.values) is each.negated:
                return False
        return not self.soft_delete or row[self.soft_delete] in (None, False)

    def entity(self, row: Row, rows: Rows) -> dict[str, Any] | None:
        """What is published of a row, with what is embedded in it; None where that cannot be."""
        entity = {name: self._value(each, row) for name, each in self.fields.items()}
        for each in self.embedded:
            below = [each.entity(one, rows) for one in each.below(self.key_of(row), rows)]
            if None in below or (each.one and len(below) > 1):
                return None
            entity[each.property] = (below[0] if below else None) if each.one else below
        return entity

    def _value(self, declared: FieldDefinition, row: Row) -> Any:
        if declared.place is None:
            return declared.constant
        value = row[declared.place]
        if self.columns[declared.place] == "jsonb":
            value = None if value is None else json.loads(value)
        if declared.cast == "text" and value is not None:
            value = str(value)
        return declared.default if value is None and declared.default is not None else value

    def tables(self) -> Iterator[Table]:
        """It and all that is embedded in it."""
        yield self
        for each in self.embedded:
            yield from each.tables()


@dataclass
class Embedded(Table):
    """A table whose rows stand in *property* of the row above, in the order of the columns *order* and its key."""

    property: str = ""
    one: bool = False
    order: tuple[str, ...] = ()

    def below(self, key: tuple[Any, ...], rows: Rows) -> list[Row]:
        """The rows that count of the row above with this key, in order."""
        of = [
            row
            for (name, _), row in rows.items()
            if name == self.name and tuple(row[each] for each in self.link) == key
        ]
        return sorted(filter(self.counts, of), key=lambda row: [self._sorting(name, row) for name in self._order()])

    def _order(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.order, *self.key)))

    def _sorting(self, name: str, row: Row) -> tuple[int, Any]:
        value = row[name]
        if value is None:
            return 1, 0
        return 0, value if self.columns[name] == "text" else Decimal(str(value))

    def definition(self) -> EmbeddedDefinition:
        """As an applied definition has it."""
        return EmbeddedDefinition(
            name=self.property,
            table=f"public.{self.name}",
            columns=self.link,
            order=self.order,
            one=self.one,
            fields=self.fields,
            where=self.where,
            soft_delete=self.soft_delete,
            embedded=tuple(each.definition() for each in self.embedded),
        )


@dataclass
class Type(Table):
    """
    A random aggregate type: a root table, and what of it is published, under which conditions.

    Its id is the key, or with *by_document* a member of a document. With *through* rows of that table name its parents:
    by *link* the row, by *parent_columns* the parent.
    """

    rank: int = 0
    parent: Type | None = None
    through: Through | None = None
    by_document: bool = False
    above: list[str] = field(default_factory=list)

    @property
    def id(self) -> tuple[str, ...]:
        """The places of the id."""
        return (f"/{DOCUMENT}/id",) if self.by_document else self.key

    def named(self) -> Named:
        """How rows of other tables name an aggregate."""
        return [("text", [str(each) for each in DOCUMENT_IDS])] if self.by_document else Table.named(self)

    def id_of(self, row: Row) -> str:
        """The id text of a row."""
        parts = [json.loads(row[DOCUMENT])["id"]] if self.by_document else self.key_of(row)
        return join_id_parts([str(each) for each in parts])

    def parents(self, row: Row, rows: Rows) -> set[str]:
        """The id texts of the parents of a row."""
        named = [tuple(row[name] for name in self.link)]
        if self.through is not None:
            named = self.through.parents(self.key_of(row), rows)
        return {join_id_parts([str(each) for each in parts]) for parts in named if None not in parts}

    def definition(self) -> ParentDefinition | None:
        """The parent, as an applied definition has it."""
        if self.parent is None:
            return None
        if self.through is None:
            return ParentDefinition(aggregate=self.parent.name, columns=self.link)
        through = ThroughDefinition(table=f"public.{self.through.name}", columns=self.through.link)
        return ParentDefinition(aggregate=self.parent.name, columns=self.through.parent_columns, through=through)

    def all_tables(self) -> list[Table]:
        """Its own, the embedded ones, and the link table."""
        return [*self.tables(), *([] if self.through is None else [self.through])]


@dataclass
class Through(Table):
    """A link table; *parent_columns* name a parent, with the types and values of *parents_named*."""

    parent_columns: tuple[str, ...] = ()
    parents_named: Named = field(default_factory=list)

    def values(self, name: str) -> list[Any]:
        """What stands in a column of a key or link."""
        if name in self.parent_columns:
            return self.parents_named[self.parent_columns.index(name)][1]
        return Table.values(self, name)

    def parents(self, key: tuple[Any, ...], rows: Rows) -> list[tuple[Any, ...]]:
        """What the rows of the link table that name the row with this key name as parents."""
        mine = [row for (name, _), row in rows.items() if name == self.name]
        return [
            tuple(row[name] for name in self.parent_columns)
            for row in mine
            if tuple(row[name] for name in self.link) == key
        ]


def random_schema(rng: random.Random, prefix: str = "", rank: int = 0) -> list[Type]:
    """One to four types, parents first, with names that begin with *prefix* and ranks from *rank* on."""
    types: list[Type] = []
    for number in range(rng.randint(1, 4)):
        # A row that shares its id with another one leaves its aggregate where it was, which no oracle knows.
        parents = [each for each in types if not (each.by_document and each.parent)]
        parent = rng.choice([None, *parents]) if parents else None
        through = parent is not None and rng.random() < 0.3
        by_document = not through and rng.random() < 0.25
        table = random_table(rng, f"{prefix}t{number}", [] if parent is None or through else parent.named())
        made = Type(**table, rank=rank + number, parent=parent, by_document=by_document)
        if not through:
            add_conditions(rng, made)
        if by_document:
            made.columns[DOCUMENT] = "jsonb"
        if parent is not None and through:
            made.through = random_link(rng, made, parent)
        for place in range(rng.choice([0, 0, 1, 2])):
            made.embedded.append(random_embedded(rng, made, place, 1))
        made.above = [] if parent is None else [parent.name, *parent.above]
        types.append(made)
    return types


def random_table(rng: random.Random, name: str, links: Named) -> dict[str, Any]:
    """What a table is made of whose rows name what they belong to with values of *links*."""
    key = tuple(f"k{number}" for number in range(rng.choice([1, 1, 2])))
    columns = {each: rng.choice(["text", "integer"]) for each in key}
    link = tuple(f"up{number}" for number in range(len(links)))
    columns |= {each: type_ for each, (type_, _) in zip(link, links, strict=True)}
    columns |= {f"c{number}": rng.choice(PLAIN) for number in range(rng.randint(1, 5))}
    fields = random_fields(rng, columns, key)
    return {"name": name, "columns": columns, "key": key, "link": link, "links": links, "fields": fields}


def add_conditions(rng: random.Random, made: Table) -> None:
    """Sometimes only some rows count."""
    if rng.random() < 0.4:
        place = rng.choice([name for name in made.columns if name[0] == "c"])
        if made.columns[place] not in ("jsonb", "numeric(10,2)"):
            chosen = tuple(rng.sample(VALUES[made.columns[place]], 2))
            made.where = (ConditionDefinition(place=place, values=chosen, negated=rng.random() < 0.5),)
    if rng.random() < 0.3:
        made.columns["gone"] = "boolean"
        made.soft_delete = "gone"


def random_embedded(rng: random.Random, above: Table, number: int, level: int) -> Embedded:
    """A table whose rows stand in those of *above*; sometimes its key begins with theirs."""
    table = random_table(rng, f"{above.name}_e{number}", Table.named(above))
    if rng.random() < 0.4:
        table["key"] = (*table["link"], table["key"][0])
    made = Embedded(**table, property=f"e{number}", one=rng.random() < 0.3)
    orders = [name for name, type_ in made.columns.items() if name[0] == "c" and type_ not in ("jsonb", "boolean")]
    if orders and not made.one and rng.random() < 0.5:
        made.order = (rng.choice(orders),)
    add_conditions(rng, made)
    if level < 3 and rng.random() < 0.4:
        made.embedded.append(random_embedded(rng, made, 0, level + 1))
    return made


def random_link(rng: random.Random, child: Type, parent: Type) -> Through:
    """A table of which each row binds an aggregate of type *child* with one of type *parent*."""
    named, parents = Table.named(child), parent.named()
    link = tuple(f"up{number}" for number in range(len(named)))
    columns = tuple(f"to{number}" for number in range(len(parents)))
    types = dict(zip((*link, *columns), (type_ for type_, _ in (*named, *parents)), strict=True))
    key = ("k0",) if rng.random() < 0.6 else (*link, "k0")
    return Through(
        name=f"{child.name}_link",
        columns={"k0": "bigint", **types},
        key=key,
        link=link,
        links=named,
        parent_columns=columns,
        parents_named=parents,
    )


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


def random_row(rng: random.Random, made: Table) -> Row:
    """A row of few different keys, links and values, so that they meet."""
    row = {name: rng.choice(VALUES[type_]) for name, type_ in made.columns.items()}
    for name in (*made.link, *(made.parent_columns if isinstance(made, Through) else ())):
        row[name] = rng.choice([*made.values(name), None])
    for name in made.key:
        row[name] = rng.choice(made.values(name))
    if DOCUMENT in row:
        row[DOCUMENT] = json.dumps({"id": rng.choice(DOCUMENT_IDS), "more": rng.choice(TEXTS)})
    return row


def truth(types: list[Type], rows: Rows) -> dict[tuple[int, str], State]:
    """What every aggregate should be published as, by rank and id."""
    counted: dict[tuple[str, str], list[Row]] = {}
    for made in types:
        for (name, _), row in rows.items():
            if name == made.name and made.counts(row):
                counted.setdefault((name, made.id_of(row)), []).append(row)
    states: dict[tuple[int, str], State] = {}
    for made in types:
        for (name, id_text), found in counted.items():
            if name == made.name:
                entity = made.entity(found[0], rows) if len(found) == 1 else None
                state = REFUSED if entity is None else (entity, ancestors(made, id_text, counted, rows))
                states[made.rank, id_text] = state
    return states


def ancestors(made: Type, id_text: str, counted: dict[tuple[str, str], list[Row]], rows: Rows) -> dict[str, Any]:
    """The ids of all above, by type; None where one of them is not there."""
    found: dict[str, Any] = {}
    below: Type = made
    above: list[str] | None = [id_text]
    while below.parent is not None:
        if above:
            ids = {up for each in above for row in counted[below.name, each] for up in below.parents(row, rows)}
            above = sorted(ids) if all((below.parent.name, each) in counted for each in ids) else None
        found[below.parent.name] = above
        below = below.parent
    return found


def expected(types: list[Type], history: list[tuple[int, Rows]]) -> list[tuple[str, str, int, str, Any, Any]]:
    """(aggregate, id, LSN, kind, after, ancestors) of every event, in order."""
    events = []
    names = {made.rank: made.name for made in types}
    published: dict[tuple[int, str], tuple[dict[str, Any], dict[str, Any]]] = {}
    for lsn, rows in history:
        states = truth(types, rows)
        for key in sorted({*published, *states}):
            old, new = published.get(key), states.get(key)
            if (key in states and new is REFUSED) or json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
                continue
            if new is None:
                assert old is not None
                events.append((names[key[0]], key[1], lsn, "deleted", None, old[1]))
                del published[key]
            else:
                events.append((names[key[0]], key[1], lsn, "updated" if old else "created", *new))
                published[key] = new
    return events
