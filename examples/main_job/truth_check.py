"""The domain topics against the truth: each committed change has its event, each event its change. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from examples.inventory.ledger import CommittedTransaction
from examples.inventory.published import GONE, Key, State
from examples.main_job.defects import DefectKind, Docket
from examples.main_job.evidence import Evidence
from examples.main_job.expectation import ExpectedEvent, expected_events, token
from examples.main_job.topics_check import PublishedEvent, Versions


def check_truth(evidence: Evidence, events: Mapping[Key, Versions], docket: Docket) -> dict[str, CommittedTransaction]:
    """Compare each aggregate's events with what was committed; return the transaction behind each live event id."""
    expected = expected_events(evidence.initial, evidence.transactions)
    behind: dict[str, CommittedTransaction] = {}
    for key in {**dict.fromkeys(evidence.initial), **dict.fromkeys(expected), **dict.fromkeys(events)}:
        versions = events.get(key, {})
        earlier = [each for _, each in sorted(versions.items()) if not each.live]
        live = [each for _, each in sorted(versions.items()) if each.live]
        _check_earlier(key, earlier, evidence, docket)
        first = (earlier[-1].event.version if earlier else 0) + 1
        for wanted, published in _aligned(key, expected.get(key, []), live, first, docket):
            behind[published.event.id] = wanted.transaction
            _check_live(key, wanted, published, versions, docket)
        _check_last(key, versions, evidence.final.get(key, GONE), docket)
    _check_positions(behind, events, docket)
    return behind


def _check_earlier(key: Key, earlier: Sequence[PublishedEvent], evidence: Evidence, docket: Docket) -> None:
    state = evidence.initial.get(key, GONE)
    if state.after is None:
        # Deleted in an earlier run, or never there.
        if earlier and (evidence.fresh or earlier[-1].event.after is not None):
            docket.add(DefectKind.INVALID, key, earlier[-1].event.version, "no event: no such row was ever committed")
        return
    if not earlier:
        docket.add(DefectKind.LOST, key, 1, "a snapshot event of a row that was there before the load")
        return
    last = earlier[-1]
    if _token(last) != token(state):
        docket.add(DefectKind.INVALID, key, last.event.version, f"the state of the source row: {_shown(state)}")
    if evidence.fresh:
        if earlier[0].event.kind != "snapshot":
            docket.add(DefectKind.INVALID, key, earlier[0].event.version, f"a snapshot, not {earlier[0].event.kind}")
        for more in earlier[1:]:
            docket.add(DefectKind.INVALID, key, more.event.version, "no event: nothing had changed yet")


def _aligned(
    key: Key, expected: Sequence[ExpectedEvent], live: Sequence[PublishedEvent], first: int, docket: Docket
) -> list[tuple[ExpectedEvent, PublishedEvent]]:
    """Pairs of a committed change and its event; whatever stands alone is a defect. *first* is the next version."""
    wanted, said = [token(each.state) for each in expected], [_token(each) for each in live]
    if wanted == said:
        return list(zip(expected, live, strict=True))
    pairs: list[tuple[ExpectedEvent, PublishedEvent]] = []
    for _, low, high, start, stop in SequenceMatcher(None, wanted, said, autojunk=False).get_opcodes():
        common = min(high - low, stop - start)
        pairs += zip(expected[low : low + common], live[start : start + common], strict=True)
        for place in range(low + common, high):
            version = first + place if start + common == 0 else live[start + common - 1].event.version + 1 + place - low
            transaction = expected[place].transaction
            docket.add(
                DefectKind.LOST,
                key,
                version,
                f"an event of transaction {transaction.xid} ({transaction.kind}): {_shown(expected[place].state)}",
            )
        for extra in live[start + common : stop]:
            docket.add(DefectKind.INVALID, key, extra.event.version, "no event: no such change was committed")
    return pairs


def _check_live(key: Key, wanted: ExpectedEvent, published: PublishedEvent, versions: Versions, docket: Docket) -> None:
    event = published.event

    def expect(text: str, holds: bool) -> None:
        if not holds:
            docket.add(DefectKind.INVALID, key, event.version, text)

    expect(f"the committed state: {_shown(wanted.state)}", _token(published) == token(wanted.state))
    expect(f"{wanted.kind}, not {event.kind}", event.kind == wanted.kind)
    context = dict(wanted.transaction.context or {})
    expect(f"context {context}, not {dict(event.context)}", dict(event.context) == context)
    former = versions.get(event.version - 1)
    if former is not None:
        before = _before(former, published)
        expect(f"before {before}", event.before == before)


def _before(former: PublishedEvent, published: PublishedEvent) -> Mapping[str, Any] | None:
    was, now = former.event, published.event
    if was.after is None:
        return None
    if now.after is None:
        # The whole last state; its ancestors are not "former", they went with it.
        extra = (now.before or {}).get("ancestors")
        return {**was.after, **({"ancestors": was.ancestors} if extra is not None else {})}
    changed = {name: value for name, value in was.after.items() if now.after.get(name) != value}
    return changed if was.ancestors == now.ancestors else {**changed, "ancestors": was.ancestors}


def _check_last(key: Key, versions: Versions, final: State, docket: Docket) -> None:
    if not versions or docket.has(DefectKind.LOST, key):
        return  # its absence is a defect already
    last = versions[max(versions)]
    if _token(last) != token(final):
        docket.add(DefectKind.INVALID, key, last.event.version, f"the final state of the source: {_shown(final)}")


def _check_positions(
    behind: Mapping[str, CommittedTransaction], events: Mapping[Key, Versions], docket: Docket
) -> None:
    """All events of one transaction carry one position, and later tickets of one aggregate later positions."""
    positions: dict[int, int] = {}
    for key, versions in events.items():
        for version, published in sorted(versions.items()):
            transaction = behind.get(published.event.id)
            if transaction is None:
                continue
            position = positions.setdefault(transaction.ticket, published.event.position)
            if position != published.event.position:
                docket.add(DefectKind.INVALID, key, version, f"position {position} like the rest of its transaction")


def _token(published: PublishedEvent) -> bytes:
    event = published.event
    if event.after is None:
        return token(GONE)
    return token(State(event.after, {name: list(ids or ()) for name, ids in event.ancestors.items()}))


def _shown(state: State) -> str:
    return "deleted" if state.after is None else f"{dict(state.after)} below {dict(state.ancestors)}"
