"""
Halted types: aggregate types whose tables are not as they were applied, while the others of their source go on.

Rows of a halted type go to row state as they come, and no event comes of them, until a resync has read its tables anew.
So do those of the types below it, whose ancestors may be wrong. Where no type would be left, the source stops. A
table of one tenant that is not as it was applied halts this tenant alone, with all its types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rowcast.errors import MappingError
from rowcast.halt import Halt, tenant_place
from stream_app.core.change import Operation, RowChange
from stream_app.core.defect import Defect, TableDefectError, without_id
from stream_app.core.embedding import EmbeddedMapping, LinkMapping
from stream_app.core.mapping import AggregateMapping, SourceMapping
from stream_app.core.reference import ReferenceTable
from stream_app.core.sequencing import types_below
from stream_app.core.tenant import tenant_of_row

# Rows cannot be mapped, and nobody knows yet whether because of their tables.
UNSURE = "TOO_MANY_REFUSALS"


class HaltedTypes:
    """The halted types of a source, and what of them has changed since the last commit."""

    def __init__(self, source: SourceMapping, halts: Iterable[Halt]) -> None:
        self._source = source
        self._halts = {(each.aggregate, each.cause): each for each in halts}
        self._added: list[Halt] = []
        self._lifted: list[str] = []
        self._fed = {table.name: types_made_of(source, table.name) for table in source.definition.tables}
        types = {each.cause for each in self._halts.values() if each.tenant is None}
        self._drop(types - set(source.by_type))
        self._judge()

    def __contains__(self, aggregate: object) -> bool:
        return aggregate in self.types

    def why(self, aggregate: str) -> Halt:
        """What halts *aggregate*; its own tables come first."""
        return self._halts.get((aggregate, aggregate)) or next(
            each for each in self._halts.values() if each.aggregate == aggregate
        )

    def stops_all(self, defects: Iterable[Defect]) -> bool:
        """Whether no type would be left if *defects* were to halt theirs."""
        of_all = [each for each in defects if each.tenant is None]
        if not of_all:
            return False
        return set(self._source.by_type) == {*self.types, *types_below(self._source, self._causes_of(of_all))}

    def halt(self, defects: Sequence[Defect], since: str) -> list[Halt]:
        """Halt the types of the tables with *defects*, and those below, or their tenants; returns what is new."""
        new = _of_tenants(defects, since)
        for cause, found in self._causes_of(each for each in defects if each.tenant is None).items():
            first, message = found[0], "; ".join(dict.fromkeys(each.message for each in found))
            tables = tuple(dict.fromkeys(each.table for each in found if each.table is not None))
            for aggregate in types_below(self._source, [cause]):
                own = tables if aggregate == cause else ()
                new.append(Halt(aggregate, cause, first.code, message, first.mended, own, since))
        new = [known for each in new if (known := self._told_better(each)) is not None]
        self._halts.update(((each.aggregate, each.cause), each) for each in new)
        self._added += new
        self._judge()
        return new

    def _told_better(self, halt: Halt) -> Halt | None:
        """What is to be known of *halt*, None where it is known. What rows show may be told better by a heartbeat."""
        former = self._halts.get((halt.aggregate, halt.cause))
        if former is None:
            return halt
        return halt._replace(since=former.since) if former.code == UNSURE != halt.code else None

    def lift(self, causes: Iterable[str]) -> list[str]:
        """What *causes* halted goes on, unless another halts it too; returns these types, parents first, no tenants."""
        former = self.types
        self._drop(causes)
        self._judge()
        return [each.name for each in self._source.by_rank if each.name in former - self.types]

    @property
    def places(self) -> list[str]:
        """What stands for halted types and tenants in metrics."""
        return sorted({*self.types, *map(tenant_place, self.tenants)})

    def why_tenant(self, tenant: str) -> Halt:
        """What halts *tenant*."""
        return self._halts[tenant_place(tenant), tenant_place(tenant)]

    def lift_tenants(self, tenants: Iterable[str]) -> None:
        """These *tenants* go on."""
        self._drop(map(tenant_place, tenants))
        self._judge()

    def lift_all(self) -> None:
        """All are read anew."""
        self.lift(set(self.causes) | set(map(tenant_place, self.tenants)))

    def take_changed(self) -> tuple[list[Halt], list[str]]:
        """What has to be written with the next commit: new halts, and causes that halt nothing any more."""
        changed = self._added, self._lifted
        self._added, self._lifted = [], []
        return changed

    def feeding(self, causes: Collection[str]) -> frozenset[str]:
        """The tables that types among *causes* are made of."""
        return frozenset(table for table, fed in self._fed.items() if fed & set(causes))

    def takes(self, row: RowChange) -> bool:
        """Whether *row* can go to row state: of a halted type it may be that nobody can tell which row it is."""
        if row.table not in self.tables and not (self.tenants and tenant_of_row(row) in self.tenants):
            return True
        return row.operation is Operation.TRUNCATE or self._is_placeable(row)

    def placeable(self, rows: Sequence[RowChange]) -> tuple[RowChange, ...]:
        """The *rows* that can; what the others did a resync finds."""
        return tuple(row for row in rows if self.takes(row))

    def refuse_nameless(self, rows: Iterable[RowChange]) -> None:
        """
        Make sure that *rows* of reference tables have their key; those of aggregates are asked when they are folded.

        Raises:
            TableDefectError: one has not, and nobody knows yet that its table is not as it was applied.

        """
        for row in rows:
            table = self._source.references.get(row.table)
            if table is None or row.table in self.tables or row.operation is Operation.TRUNCATE:
                continue
            if tenant_of_row(row) in self.tenants:
                continue
            try:
                table.row_key((row.before if row.operation is Operation.DELETE else row.after) or {})
            except MappingError as error:
                raise without_id(self._source.definition.source, row, error) from error

    def refuse_cut(self, rows: Iterable[RowChange]) -> None:
        """
        Make sure that *rows* have all columns that are mapped.

        Raises:
            TableDefectError: one has not, and nobody knows yet that its table is not as it was applied.

        """
        for row in rows:
            tenant = tenant_of_row(row)
            if row.after is None or row.table in self.tables or tenant in self.tenants:
                continue
            mapping = self._rows_of(row.table)
            lacking = sorted(mapping.needed - row.after.keys()) if mapping else ()
            if lacking:
                message = f"{row.table}: rows come without column {', '.join(map(repr, lacking))}"
                mended = "put it back, or change the source file"
                defect = Defect("COLUMN_CHANGED", message, mended, row.table, tenant=tenant)
                raise TableDefectError(self._source.definition.source, [defect])

    def _rows_of(self, table: str) -> AggregateMapping | EmbeddedMapping | ReferenceTable | None:
        source = self._source
        return source.references.get(table) or source.by_table.get(table) or source.embedded_tables.get(table)

    def _is_placeable(self, row: RowChange) -> bool:
        mapping = self._rows_of(row.table)
        assert mapping is not None, "types are made of the table"
        try:
            mapping.row_key((row.before if row.operation is Operation.DELETE else row.after) or {})
            if isinstance(mapping, LinkMapping) and row.after is not None:
                mapping.parent(mapping.keep(row.after))
        except MappingError:
            return False
        return True

    def _drop(self, causes: Iterable[str]) -> None:
        for cause in sorted(causes):
            known = [key for key in self._halts if key[1] == cause]
            for key in known:
                del self._halts[key]
            if known:
                self._added = [each for each in self._added if each.cause != cause]
                self._lifted.append(cause)

    def _judge(self) -> None:
        of_types = {key: each for key, each in self._halts.items() if each.tenant is None}
        self.types = frozenset(aggregate for aggregate, _ in of_types)
        self.causes = frozenset(cause for _, cause in of_types)
        self.tenants = frozenset(each.tenant for each in self._halts.values() if each.tenant is not None)
        # What is wrong with them is known, and their rows are taken as they come.
        known = {cause for (_, cause), each in of_types.items() if each.code != UNSURE}
        self.tables = frozenset(table for table, fed in self._fed.items() if fed and fed <= known)

    def _causes_of(self, defects: Iterable[Defect]) -> dict[str, list[Defect]]:
        causes: dict[str, list[Defect]] = {}
        for each in defects:
            for cause in sorted(self._fed.get(each.table or "", ())):
                causes.setdefault(cause, []).append(each)
        return causes


def _of_tenants(defects: Iterable[Defect], since: str) -> list[Halt]:
    found: dict[str, list[Defect]] = {}
    for each in defects:
        if each.tenant is not None:
            found.setdefault(each.tenant, []).append(each)
    new = []
    for tenant, own in found.items():
        message, place = "; ".join(dict.fromkeys(each.message for each in own)), tenant_place(tenant)
        tables = tuple(dict.fromkeys(each.table for each in own if each.table is not None))
        new.append(Halt(place, place, own[0].code, message, own[0].mended, tables, since))
    return new


def types_made_of(source: SourceMapping, table: str) -> frozenset[str]:
    """The aggregate types with rows of *table* in their events: as root, embedded, link, or looked up."""
    names = {name for name, each in source.tables.items() if each == table}
    if table in source.references:
        names.update(each.name for each in source.references[table].dependents)
    found = {source.embedded[name].aggregate if name in source.embedded else name for name in names}
    return frozenset(found & set(source.by_type))
