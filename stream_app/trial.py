"""
A definition tried on rows, in memory: the worker's core without log, broker and control database.

What a source file does with rows is shown by `rowcast sources preview` and proved by `rowcast sources test`; both
run exactly the code that workers run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from rowcast.annotation import STATED_PREFIX
from rowcast.event import DomainEvent, decode
from rowcast.hash_key import HashKey
from rowcast.sources.definition import SourceDefinition
from stream_app.contract import compile_validators
from stream_app.core.change import Columns, Message, Operation, RowChange
from stream_app.core.emission import Emitted, Origin
from stream_app.core.loading import Lookups
from stream_app.core.mapping import compile_mapping
from stream_app.core.sequencing import emit_pending, in_order, key_of, sequence
from stream_app.core.state import ABSENT, AggregateState, Key, Lookup, View
from stream_app.core.statement import RefusedStatement, Statement
from stream_app.core.tail import Tail
from stream_app.core.transaction import Transaction

TableRow = tuple[str, Columns]
# Cases are committed and run without any secret.
_CASE_KEY = HashKey(b"cases of rowcast sources test")
_TIME = "2000-01-01T00:00:00.000000Z"


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of the aggregates of one commit: its *events*, in order, and the reasons of those refused now.

    *newest* has the newest major of each aggregate type; *refused_statements* which stated events were refused.
    """

    events: tuple[DomainEvent, ...]
    refused: Mapping[Key, str]
    newest: Mapping[str, int]
    refused_statements: tuple[RefusedStatement, ...] = ()

    def shown(self, event: DomainEvent) -> dict[str, Any]:
        """One of the events, as previews and cases have it."""
        return shown(event, older=event.major != self.newest[event.identity.aggregate])


@dataclass(slots=True)
class _State:
    """What the control database would hold."""

    aggregates: dict[Key, AggregateState] = field(default_factory=dict)
    rows: dict[Key, Columns | None] = field(default_factory=dict)
    owners: dict[Key, str | None] = field(default_factory=dict)

    def load(self, lookup: Lookup, view: View) -> None:
        for key in lookup.aggregates | lookup.held:
            view.aggregates[key] = self.aggregates.get(key, ABSENT)
        view.stored |= (lookup.aggregates | lookup.held) & self.aggregates.keys()
        for key in lookup.aggregates:
            view.rows[key] = self.rows.get(key)
        for key in lookup.held:
            view.candidates.setdefault(key, set())
            for row, owner in self.owners.items():
                columns = self.rows[row]
                if row.aggregate == key.aggregate and owner == key.id_text and columns is not None:
                    view.note_holder(key, row.id_text, columns)
        for row in lookup.rows:
            view.note_row(row, self.rows.get(row), self.owners.get(row))
        for child, parent in lookup.children:
            below = (key for key, state in self.aggregates.items() if state.parent_id_text == parent)
            view.children[child, parent] = {key.id_text for key in below if key.aggregate == child}
        for (child, parent), index in lookup.indexes.items():
            bound = (self.rows[row] for row, owner in self.owners.items() if (row.aggregate, owner) == (index, parent))
            view.children[child, parent] |= {row["child"] for row in bound if row is not None}

    def save(self, view: View) -> None:
        for key in view.dirty:
            self.aggregates[key] = view.aggregates[key]
        for key in view.dirty_rows:
            self.rows[key], self.owners[key] = view.rows[key], view.owners.get(key)


class Trial:
    """A source with rows in memory, empty at first. Without *hash_key* it hashes with a key that everybody knows."""

    def __init__(self, definition: SourceDefinition, hash_key: HashKey | None = None) -> None:
        self.mapping = compile_mapping(definition, compile_validators(definition), hash_key or _CASE_KEY)
        self._state = _State()
        self._lsn = 0

    def key_of_row(self, table: str, columns: Columns) -> Key:
        """The type and key of a row of *table*."""
        return key_of(self.mapping, _change(Operation.CREATE, table, columns, 1))

    def aggregate_of(self, row: Key) -> Key | None:
        """The aggregate that a committed row stands for; None when it does not count."""
        if row.aggregate not in self.mapping.held:
            return row
        owner = self._state.owners.get(row)
        return None if owner is None else Key(row.aggregate, owner)

    def commit(
        self,
        written: Iterable[TableRow],
        deleted: Iterable[TableRow] = (),
        stated: Iterable[Mapping[str, Any]] = (),
        *,
        snapshot: bool = False,
    ) -> Outcome:
        """
        Write and delete rows of tables in one transaction, and then state events, the contents of their messages.

        With *snapshot* as if the rows had been there before.

        Raises:
            StopError: a row has no key, or is of a table that the definition does not know.

        """
        self._lsn += 1
        changes = [(Operation.DELETE, *each) for each in deleted] + [(Operation.CREATE, *each) for each in written]
        rows = tuple(self._change(*each, number) for number, each in enumerate(changes, 1))
        messages = tuple(
            Message(STATED_PREFIX, orjson.dumps(each), self._lsn, number, 0)
            for number, each in enumerate(stated, len(rows) + 1)
        )
        unit = Transaction(self._lsn, self._lsn, len(rows) + len(messages), 0, rows, messages)
        every_type = frozenset(self.mapping.by_type)
        view, folded = View(), Emitted()
        self._run(sequence(self.mapping, view, [unit], every_type, (folded, Tail())), view)
        said: dict[Key, list[Statement]] = {}
        for each in folded.statements:
            said.setdefault(each.key, []).append(each)
        # A reference row may concern any aggregate, so all are looked at: what did not change gives no event.
        view, emitted = View(), Emitted()
        keys = in_order(self.mapping, {*self._state.aggregates, *said})
        origin = Origin(self._lsn, _TIME, snapshot=snapshot)
        self._run(emit_pending(self.mapping, view, keys, origin, (emitted, Tail()), said), view)
        refused = {key: state.refusal.reason for key, state in self._state.aggregates.items() if state.refusal}
        statements = sorted((*folded.refused_statements, *emitted.refused_statements), key=lambda each: each.order)
        newest = {each.name: each.definition.major for each in self.mapping.by_rank}
        return Outcome(tuple(decode(*record) for record in emitted.records), refused, newest, tuple(statements))

    def kept(self, table: str, row: Columns) -> Columns:
        """A row of *table* without what may not be published as it is."""
        shield = self.mapping.shield
        return row if shield is None else shield.row(table, row)

    def committable(self, table: str, row: Columns) -> dict[str, Any]:
        """The same, in the form of a row that was read: a case of it can be committed."""
        kept = self.kept(table, row)
        return {
            # Documents are read as texts.
            name: orjson.dumps(value).decode()
            if isinstance(value, (dict, list)) and isinstance(row[name], str)
            else value
            for name, value in kept.items()
        }

    def _change(self, operation: Operation, table: str, columns: Columns, order: int) -> RowChange:
        return _change(operation, table, self.kept(table, columns), order)

    def _run(self, lookups: Lookups, view: View) -> None:
        for lookup in lookups:
            self._state.load(lookup, view)
        self._state.save(view)


def _change(operation: Operation, table: str, columns: Columns, order: int) -> RowChange:
    gone = operation is Operation.DELETE
    return RowChange(operation, table, columns if gone else None, None if gone else columns, 1, order, 1, 0)


def shown(event: DomainEvent, *, older: bool = False) -> dict[str, Any]:
    """An event as previews and cases have it; *older*: it is of an older major, and says so."""
    entry: dict[str, Any] = {
        "aggregate": event.identity.aggregate,
        "id": event.identity.id_text,
        "kind": str(event.kind),
        "version": event.version,
        "major": event.major if older else None,
        "after": event.after,
        "before": event.before,
        "ancestors": event.ancestors,
    }
    entry = {name: value for name, value in entry.items() if value is not None or name == "after"}
    return entry if event.stated is None else {**entry, "kind": event.stated, "data": event.data}
