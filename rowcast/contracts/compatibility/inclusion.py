"""
The proof that a reader accepts all that a writer emits: type by type, keyword by keyword.

No gap means proven. A schema that contains itself is proven by induction over the size of the instance: what is being
proven may be taken for granted one level further down, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from rowcast.contracts.compatibility.acceptance import keyword_accepts
from rowcast.contracts.compatibility.array_checks import ARRAY_CHECKS
from rowcast.contracts.compatibility.bounds import interval
from rowcast.contracts.compatibility.cell import Cell
from rowcast.contracts.compatibility.composition_checks import COMPOSITION_CHECKS
from rowcast.contracts.compatibility.disjointness import is_empty, refuses
from rowcast.contracts.compatibility.document import OPAQUE, Node
from rowcast.contracts.compatibility.gap import Candidates, Gap, Seen
from rowcast.contracts.compatibility.instances import Instances
from rowcast.contracts.compatibility.object_checks import OBJECT_CHECKS
from rowcast.contracts.compatibility.sameness import same
from rowcast.contracts.compatibility.scalar_checks import SCALAR_CHECKS

_STEPS_MAX = 20_000
_RANGE_MAX = 64
_CHECKS = {**SCALAR_CHECKS, **ARRAY_CHECKS, **OBJECT_CHECKS}
# For values that can be tried one by one, these are the only ones to be taken apart.
_TRANSPARENT = {"$ref", "allOf"}


class Inclusion:
    """One proof, with the *instances* of the writer to look for counterexamples."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self._steps = 0
        self._assumed: set[tuple[Any, ...]] = set()
        self._uses = 0
        self._proven: set[tuple[Any, ...]] = set()

    def gaps(self, nodes: Sequence[Node], reader: Node) -> list[Gap]:
        """What keeps *reader* from accepting all values that a writer of all *nodes* emits; [] when nothing does."""
        if reader.schema is True or reader.schema == {} or any(same(node.schema, reader.schema) for node in nodes):
            return []
        key = (tuple(node.key for node in nodes), reader.key)
        if key in self._proven:
            return []
        if key in self._assumed:
            self._uses += 1
            return []
        uses = self._uses
        self._assumed.add(key)
        try:
            found = [gap for cell in self.instances.cells(nodes) for gap in self.of_cell(cell, reader, frozenset())]
        finally:
            self._assumed.discard(key)
        if not found and uses == self._uses:
            self._proven.add(key)
        return found

    def of_cell(self, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
        """The gaps of one cell. *seen*: readers of this very value that led here."""
        self._steps += 1
        if reader.schema is True or is_empty(cell):
            return []
        if reader.schema is False:
            return [self.gap("false", cell, reader)]
        if reader.key in seen or self._steps > _STEPS_MAX:
            return [self.gap("$ref", cell, reader, understood=False)]
        finite = named_values(cell)
        found: list[Gap] = []
        for keyword in reader.schema:
            if keyword in COMPOSITION_CHECKS and (finite is None or keyword in _TRANSPARENT):
                found += COMPOSITION_CHECKS[keyword](self, cell, reader, seen | {reader.key})
            elif finite is not None:
                found += self._of_values(finite, cell, reader, keyword)
            elif keyword in OPAQUE:
                found += self._opaque(cell, reader, keyword)
            elif keyword in _CHECKS:
                type_, check = _CHECKS[keyword]
                if type_ in {"", cell.type}:
                    found += check(self, cell, reader, keyword)
        return found

    def gap(self, keyword: str, cell: Cell, reader: Node, candidates: Candidates | None = None, **more: Any) -> Gap:
        """A gap; *candidates* are tried before the usual instances of *cell*."""

        def every() -> Any:
            return chain(candidates() if candidates else (), self.instances.of_cell(cell))

        return Gap(keyword, cell, reader, every, **more)

    def _of_values(self, values: list[Any], cell: Cell, reader: Node, keyword: str) -> list[Gap]:
        verdicts = [(value, keyword_accepts(reader, keyword, value)) for value in values]
        wrong = [value for value, verdict in verdicts if verdict is False]
        unclear = [value for value, verdict in verdicts if verdict is None]
        if wrong:
            return [self.gap(keyword, cell, reader, lambda: iter(wrong), name=wrong)]
        return [self.gap(keyword, cell, reader, lambda: iter(unclear), understood=False)] if unclear else []

    def _opaque(self, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
        counts = keyword in {"minContains", "maxContains"}
        kind = "array" if counts or keyword in {"unevaluatedItems", "additionalItems"} else "object"
        idle = reader.schema[keyword] in (True, {}) if not counts else not reader.has("contains")
        idle = idle or (keyword == "minContains" and reader.schema[keyword] <= 1)
        if idle or (cell.type != kind and not keyword.startswith("$")):
            return []
        return [self.gap(keyword, cell, reader, understood=False)]


def named_values(cell: Cell) -> list[Any] | None:
    """All values of *cell* when they are few; None otherwise."""
    if cell.values is not None:
        return [value for value in cell.values if not refuses(cell, value)]
    if cell.type == "string" and cell.most("maxLength") == 0:
        return [] if refuses(cell, "") else [""]
    if cell.integer:
        bounds = interval(cell)
        if bounds.low is not None and bounds.high is not None and bounds.high - bounds.low < _RANGE_MAX:
            values = range(bounds.low, bounds.high + 1)
            return [value for value in values if not refuses(cell, value)]
    return None
