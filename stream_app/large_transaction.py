"""
Transactions that are too large for memory: kept aside until their END is checked, then folded aggregate by aggregate.

The position stays before their BEGIN until all is folded, so a crash reads them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from stream_app.core.bucket import Spill
from stream_app.core.change import RowChange
from stream_app.core.defect import TableDefectError
from stream_app.core.embedding import EmbeddedMapping
from stream_app.core.emission import Emitted
from stream_app.core.mapping import AggregateMapping
from stream_app.core.reference import referring
from stream_app.core.sequencing import emptied_below, origin_of, sequence_part, split_truncates
from stream_app.core.state import Emptied, Key, View
from stream_app.core.transaction import LargeTransaction, PlacedUnit, Transaction
from stream_app.folding import Folding
from stream_app.opening import Claim
from stream_app.staging import Batch, Staging
from stream_app.step import Step


class LargeTransactions:
    """Those of one claim, one after the other; what a former claim kept of one is read again from the change log."""

    def __init__(self, claim: Claim, folding: Folding) -> None:
        self._folding = folding
        self._staging = Staging(claim.connection, claim.mapping, folding.store.hold)
        self._staging.clear()
        # Those of the open one: reference tables are small, so they stay in memory.
        self._reference_rows: list[RowChange] = []
        if "merging" in (folding.position.sub_position or {}):
            self._leave_merging()

    def _leave_merging(self) -> None:
        """
        A large transaction was being folded when the claim ended: it is read again from its BEGIN.

        What it left pending stays: a parent that has moved already does not move again. Row state is ahead of what was
        published until then, so that no command may send any of it.
        """
        position = self._folding.position
        unmerged = {"unmerged": (position.sub_position or {})["merging"]}
        self._folding.land(View(), Emitted(), Step(), replace(position, sub_position=unmerged))

    def forget(self) -> None:
        """The open one broke off before a snapshot."""
        self._folding.wait()
        self._staging.clear()
        self._reference_rows.clear()

    def stage(self, spill: Spill) -> None:
        """Keep a part of the open transaction, while the next one is read."""
        folding, references = self._folding, self._folding.mapping.references
        folding.note_rows(row for _, row in spill.changes)
        if references:
            self._reference_rows += [row for _, row in spill.changes if row.table in references]
            kept = tuple(change for change in spill.changes if change[1].table not in references)
            spill = Spill(kept, spill.statements)
        while True:
            changes = [each for each in spill.changes if folding.halted.takes(each[1])]
            try:
                lines = self._staging.lines(changes, spill.statements)
            except TableDefectError as fault:
                folding.wait()
                folding.halt(fault, folding.idle_origin().time)
                folding.land_alone(View(), Emitted(), Step(), folding.position)
            else:
                return folding.landing.run(partial(self._staging.stage, lines))

    def commit(self, placed: PlacedUnit, unit: LargeTransaction) -> None:
        """
        Fold the staged changes aggregate by aggregate, each with its event.

        Whoever repeats this finds nothing to say about those that are committed. What the transaction moves or
        truncates goes on to the chunks that follow.
        """
        folding, mapping, origin = self._folding, self._folding.mapping, origin_of(unit)
        self.stage(unit.rest)
        folding.wait()
        truncated = self._staging.apply_truncates()
        folding.note_truncated(unit, truncated)
        self._staging.complete_moved(unit.lsn, truncated)
        folding.without_defects(partial(self._begin_merging, unit, truncated), origin.time)
        for batch, view in self._batches():
            folding.interrupt()
            part = Transaction(unit.xid, unit.lsn, unit.change_count, unit.time_us, batch.rows, unit.messages)
            views = [view]  # good for one try: what is folded in vain stays in it
            folding.without_defects(partial(self._fold_part, part, batch, views), origin.time)
        step = Step(pending_children=True)
        step.pending_types, step.pending_tenants = emptied_below(mapping, truncated)
        step.placed = (unit.lsn, origin.time)
        folding.wait()  # on its connection the last part may still be committed
        step.refused, step.refused_statements = self._staging.misread(step.placed)
        folding.commit_units([placed], (step, origin), frozenset(mapping.by_type))
        folding.wait()
        self._staging.clear(done=True)
        folding.emit_pending()

    def _batches(self) -> Iterator[tuple[Batch, View]]:
        """
        All that is staged, with the state of these aggregates: read while the batch before is folded, which has others.

        Parents' types come first, embedded rows behind all roots and those above; then the order is that of the keys.
        """
        ask = self._folding.landing.ask
        for mapping in self._folding.mapping.of_aggregates:
            coming = ask(partial(self._next, mapping, ""))
            while (found := coming.result()) is not None:
                coming = ask(partial(self._next, mapping, found[0].last.id_text))
                yield found

    def _next(self, mapping: AggregateMapping | EmbeddedMapping, behind: str) -> tuple[Batch, View] | None:
        batch = self._staging.next(mapping, behind, self._folding.chunk_max)
        if batch is None:
            return None
        of_one_row = self._folding.mapping.is_of_one_row(mapping.name)
        return batch, self._folding.read_committed(batch.keys if of_one_row else ())

    def _begin_merging(self, unit: LargeTransaction, truncated: Sequence[Emptied]) -> None:
        """Empty what *unit* truncates and take over its reference rows, before anything is made with them."""
        folding, rows = self._folding, tuple(self._reference_rows)
        part = Transaction(unit.xid, unit.lsn, unit.change_count, unit.time_us, rows, ())
        emptied, rest = split_truncates(folding.mapping, part)
        step = Step(
            generation=folding.generations.number,
            truncated=[*truncated, *emptied],
            pending_referring=referring(folding.mapping.references, rows),
        )
        position = replace(folding.position, sub_position={"merging": unit.lsn})
        folding.fold_and_land([rest], frozenset(folding.mapping.by_type), step, position)
        folding.wait()
        self._reference_rows = []

    def _fold_part(self, part: Transaction, batch: Batch, views: list[View]) -> None:
        """Fold all changes of some aggregates of one type; no events go out for those that wait."""
        folding, mapping = self._folding, self._folding.mapping
        position = replace(folding.position, sub_position={"merging": part.lsn, "last": list(batch.last)})
        if not mapping.is_of_one_row(batch.last.aggregate):
            # Rows of another part may take what one of this part lets go, or stand in the same aggregate.
            step = Step(generation=folding.generations.number, pending_touched=True)
            folding.fold_and_land([part], frozenset(mapping.by_type), step, position)
            return
        view, emitted, parents, sure = (views or [View()]).pop(), folding.emitted(), list[Key](), not folding.tail
        out = (emitted, folding.tail, parents)
        folding.fold(sequence_part(mapping, view, (part, batch.keys), (folding.unready, batch.waiting), out), view)
        if sure:
            folding.refuse_wave(view, emitted, part.rows)
        folding.land(view, emitted, Step(generation=folding.generations.number, pending=parents), position)
        folding.metrics.batch(len(part.rows), emitted.events, emitted.refused, emitted.repeated)
