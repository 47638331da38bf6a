"""
Refused aggregates as they come: named in the log, and counted.

A wave of refusals is not a few bad rows: above the declared share the types that it comes from are halted, or the
source stops.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping

from rowcast.errors import StopError
from stream_app.core.defect import Defect, TableDefectError
from stream_app.core.state import Key, Refusal, View
from stream_app.core.statement import RefusedStatement

log = logging.getLogger("rowcast.worker")
TOO_MANY = "TOO_MANY_REFUSALS"
_MENDED = "mend mapping or contract, and rowcast sources apply"
# Fewer outcomes than this say nothing about a share; after this many a new interval begins.
_OUTCOMES_MIN = 20
_INTERVAL_OUTCOMES = 1_000
_REASON_MAX = 300
# So many aggregates are named in a second; of the others the number.
_NAMED_MAX = 3
_REMEMBERED_MAX = 10_000


class RefusalWatch:
    """Counts events and refusals of one claim, an interval at a time, and names what is refused."""

    def __init__(self, source: str, share_max: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._share_max = share_max
        self._events = 0
        self._refused = 0
        self._first = ""
        self._by_type = Counter[str]()
        self._names = RefusalLog(source, now_s)

    def refuse_wave(
        self,
        tables: Mapping[str, str],
        outcomes: tuple[int, int],
        view: View,
        statements: Iterable[RefusedStatement] = (),
    ) -> None:
        """
        Make sure that `check` of the same batch would pass: *outcomes* are its events and refusals. Counts nothing.

        Raises:
            TableDefectError: it would not, because of the types with these root *tables*, the fewest that explain it.

        """
        events, refused = (now + former for now, former in zip(outcomes, self._known(), strict=True))
        allowed = self._share_max * (events + refused)
        if not outcomes[1] or events + refused < _OUTCOMES_MIN or refused <= allowed:
            return
        refusals = [*_refusals(view), *map(_of_statement, statements)]
        counts = Counter(key.aggregate for key, _ in refusals)
        if not self._is_over():
            counts += self._by_type
        defects = []
        message = f"{refused} of {events + refused} events were refused, more than the declared share {self._share_max}"
        first = next((f"; the first is {_name(*each)}" for each in refusals), "")
        for aggregate, count in counts.most_common():
            if refused > allowed and aggregate in tables:
                told = f"{message}, {count} of {aggregate}{self._first or first}"
                defects.append(Defect(TOO_MANY, told, f"{_MENDED} {self._source}", tables[aggregate], lossless=True))
                refused -= count
        if defects:
            raise TableDefectError(self._source, defects)

    def begin(self) -> None:
        """Count anew: the types that most of it came from are halted."""
        self._events = self._refused = 0
        self._first = ""
        self._by_type.clear()

    def _is_over(self) -> bool:
        return self._events + self._refused >= _INTERVAL_OUTCOMES

    def _known(self) -> tuple[int, int]:
        return (0, 0) if self._is_over() else (self._events, self._refused)

    def check(
        self, events: int, refused: int, view: View | None = None, statements: Iterable[RefusedStatement] = ()
    ) -> None:
        """
        Count the outcomes of a batch that is about to be published.

        Logged is which aggregates of its *view* and which *statements* are refused.

        Raises:
            StopError: too large a share was refused; nothing of the batch may be published.

        """
        if self._is_over():
            self.begin()
        self._events += events
        self._refused += refused
        refusals = _refusals(view) if refused and view is not None else []
        refusals += map(_of_statement, statements)
        self._by_type.update(key.aggregate for key, _ in refusals)
        if refusals and not self._first:
            self._first = f"; the first is {_name(*refusals[0])}"
        outcomes = self._events + self._refused
        if refused and outcomes >= _OUTCOMES_MIN and self._refused > self._share_max * outcomes:
            raise StopError(
                TOO_MANY,
                f"{self._refused} of {outcomes} events were refused, more than the declared share {self._share_max}"
                + self._first,
                remedy=f"{_MENDED} {self._source}; then rowcast sources resume {self._source}",
            )
        self._names.note(refusals)


class RefusalLog:
    """A warning for each aggregate that is refused anew, and never a flood of them."""

    def __init__(self, source: str, now_s: Callable[[], float]) -> None:
        self._source = source
        self._now_s = now_s
        self._known: OrderedDict[tuple[Key, int], None] = OrderedDict()
        self._second_s = float("-inf")
        self._named = self._unnamed = 0

    def note(self, refusals: list[tuple[Key, Refusal]]) -> None:
        """Name those of *refusals* that were not named before; called with each batch, also with none."""
        if self._now_s() - self._second_s >= 1.0:
            self._begin_second()
        for key, refusal in refusals:
            # Changed again and refused again, an aggregate keeps the position of its first refusal.
            if (key, refusal.lsn) in self._known:
                continue
            self._known[key, refusal.lsn] = None
            if len(self._known) > _REMEMBERED_MAX:
                self._known.popitem(last=False)
            if self._named < _NAMED_MAX:
                self._named += 1
                log.warning("source %s: refused %s", self._source, _name(key, refusal))
            else:
                self._unnamed += 1

    def _begin_second(self) -> None:
        if self._unnamed:
            log.warning(
                "source %s: refused %d more; `rowcast refused list %s` names them",
                self._source,
                self._unnamed,
                self._source,
            )
        self._second_s = self._now_s()
        self._named = self._unnamed = 0


def _refusals(view: View) -> list[tuple[Key, Refusal]]:
    """The refused aggregates among those that the batch changed, in the order of their refusal."""
    refused = [(key, state.refusal) for key in view.dirty if (state := view.state(key)).refusal is not None]
    return sorted(((key, each) for key, each in refused if each is not None), key=lambda pair: (pair[1].lsn, pair[0]))


def _of_statement(refused: RefusedStatement) -> tuple[Key, Refusal]:
    key = Key(refused.aggregate or "(unknown)", f"{refused.id_text or '(unknown)'} {refused.event or '(unknown)'}")
    return key, Refusal(refused.reason, refused.record, refused.since, refused.lsn)


def _name(key: Key, refusal: Refusal) -> str:
    # Reasons hold no values of the row, but line breaks, and names from inside JSON documents.
    reason = " ".join(refusal.reason.split())
    return f"{key.aggregate} {key.id_text}: {reason[:_REASON_MAX]}"
