"""Personal data where several majors are live: what a source hides reaches no older one in clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept
from test_personal_data_rules import (
    CLEAR,
    KEY,
    NONE,
    PERSON,
    PROPERTIES,
    TEXT,
    Pipeline,
    catalogue,
    contract,
    digest,
    row,
)
from test_personal_data_rules import source as plain_source

from rowcast.annotation import STATED_PREFIX
from rowcast.contracts.contract import Contract
from rowcast.errors import ConfigurationError, StopError
from rowcast.event import DomainEvent
from rowcast.hash_key import HashKey
from rowcast.sources.compilation import compile_definition
from rowcast.sources.control_plan import _refuse_uncaptured
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.shielded_column import is_hashing
from stream_app.core.mapping import compile_mapping
from stream_app.core.state import AggregateState, Key, publish

LIVE = ("    id: id\n", "    id: id\n    contract: v2.0\n    former: {v1.0: older}\n    events: {moved: {}}\n")
LOOSE = ("{name: mask, contact: hash, government-id: drop, birth: publish}", "{}")
# It tells clear values wherever it can: `note`, which the newest contract calls harmless, and what it makes up.
OLDER = f"""
def older(customer):
    made = {{name: customer[name] for name in ("id", "mail", "person", "tags")}}
    made["person"] = customer["person"] and {{**customer["person"], "nick": "{CLEAR}"}}
    made |= {{"full": customer["name"], "alias": customer["name"]}}
    return {{**made, "number": "{CLEAR}", "passport": "{CLEAR}", "remark": customer["note"]}}
"""
FORMER: dict[str, Any] = {
    "id": {"type": "integer", **NONE},
    "full": {**TEXT, "x-pii": "name"},
    "alias": {**TEXT, **NONE},
    "mail": {**TEXT, "x-pii": "contact"},
    "number": {**TEXT, "x-pii": "government-id"},
    "passport": {**TEXT, "x-pii": "government-id"},
    "remark": {**TEXT, "x-pii": "contact"},
    "tags": {"type": ["array", "null"], "items": {"type": ["string", "null"]}, "x-pii": "contact"},
    "person": {"oneOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
}


def contracts(former: Mapping[str, Any] = FORMER, newest: Mapping[str, Any] = PROPERTIES) -> dict[str, Contract]:
    """Two majors of `customer`, and an event that services state; `passport` came in a later minor."""
    path, required = Path("schemas/shop/customer/v2.0.json"), [name for name in former if name != "passport"]
    moved = {"type": "object", "properties": {"to": {**TEXT, **NONE}}}
    return {
        "customer": replace(contract(newest), path=path, major=2),
        "customer/v1": contract(former, required=required),
        "customer.moved": replace(contract(), aggregate="customer.moved", entity=moved),
    }


def compiled(tmp_path: Path, *changes: tuple[str, str], **given: Any) -> SourceDefinition:
    (tmp_path / "shop.py").write_text(OLDER)
    return compile_definition(plain_source(tmp_path, LIVE, *changes), contracts(**given), catalogue())


class Majors(Pipeline):
    """The core of a worker that publishes both majors."""

    def __init__(self, definition: SourceDefinition) -> None:
        (customer,) = definition.aggregates
        names = ["customer", "customer.moved", *(each.dataschema for older in customer.former for each in older.events)]
        names += [older.dataschema for older in customer.former]
        self.mapping = compile_mapping(definition, dict.fromkeys(names, accept), KEY)
        self.log, self.store = ChangeLog(), MemoryStore()

    def older(self, *changes: tuple[str, str, Any, Any]) -> DomainEvent:
        """The last event of major 1 that a transaction gives."""
        return [each for each in self.commit(*changes) if each.major == 1][-1]


@pytest.fixture
def majors(tmp_path: Path) -> Majors:
    """With a field of every kind in both."""
    return Majors(compiled(tmp_path))


def test_an_older_major_holds_nothing_that_is_dropped_masked_or_hashed(majors: Majors) -> None:
    """What the newest alone calls personal, and what the older contract alone does; nothing is hashed twice."""
    event = majors.older(("c", "customer", None, row(note=CLEAR)))

    assert event.after == {
        "id": 1, "full": "***", "alias": "***", "mail": digest(f"{CLEAR}@b"), "number": None, "remark": digest(CLEAR),
        "tags": [digest(CLEAR), None],
        "person": {
            "name": "***", "town": "Kiel", "mail": digest(f"{CLEAR}@a"), "number": None,
            "friends": [{"name": "***", "number": None, "friends": [{"mail": digest(CLEAR), "number": None}]}],
        },
    }  # fmt: skip
    assert CLEAR not in repr(event)


def test_former_values_and_stated_events_are_hidden_in_it_too(majors: Majors) -> None:
    """`before` is made from what the newest told; the entity beside what was stated is that of the major."""
    majors.commit(("c", "customer", None, row(note=CLEAR)))
    changed = majors.older(("u", "customer", row(note=CLEAR), row(mail="other", name="OTHER", note="m")))
    said = {"aggregate": "customer", "id": 1, "event": "moved", "data": {"to": "Kiel"}}
    stated = majors.older(("m", STATED_PREFIX, said, None))
    deleted = majors.older(("d", "customer", row(mail="other"), None))

    assert changed.before == {"mail": digest(f"{CLEAR}@b"), "remark": digest(CLEAR)}
    assert (stated.name, stated.data, stated.after) == ("moved", {"to": "Kiel"}, changed.after)
    assert deleted.before is not None
    assert (deleted.before["full"], deleted.before["mail"], deleted.before["number"]) == ("***", digest("other"), None)
    assert CLEAR not in repr((changed, stated, deleted))
    assert "OTHER" not in repr((changed, stated, deleted))


@pytest.mark.parametrize("operation", ["c", "d"])
def test_stricter_rules_hold_for_what_an_older_major_told_before(
    tmp_path: Path, majors: Majors, operation: str
) -> None:
    """Whatever form it has: that of the newest, which can be hidden, or that of the older, which is then not told."""
    loose = Majors(compiled(tmp_path, LOOSE, ("pii: {}\n", "")))
    (_newest, clear) = loose.commit(("c", "customer", None, row(note=CLEAR)))
    assert CLEAR in repr(clear.after)
    change = (operation, "customer", row(), None) if operation == "d" else ("c", "customer", None, row(note="m"))
    for former in (
        loose.store.aggregates[Key("customer", "1")],
        AggregateState(1, None, True, publish({"id": 1, "full": CLEAR, "remark": CLEAR}, {}), None, (1,)),
    ):
        majors.store.rows, majors.store.aggregates = dict(loose.store.rows), {Key("customer", "1"): former}
        event = majors.older(change)
        assert event.major == 1
        assert CLEAR not in repr(event)
        assert (event.before is None) == (former.majors is not None)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "nobody classified it": (
        {"remark": {**TEXT, "x-pii": "unclassified"}},
        "v1.0.json#/properties/remark/x-pii: nobody has said whether it is personal data",
    ),
    "no word for its class": (
        {"remark": {**TEXT, "x-pii": "health"}},
        "v1.0.json#/properties/remark: `pii` of this source does not say what to do with health",
    ),
    "a mask that the contract rejects": (
        {"full": {"type": "integer", "x-pii": "name"}},
        "v1.0.json#/properties/full: is masked, but the contract does not accept '***' there",
    ),
    "a hash that the contract rejects": (
        {"mail": {**TEXT, "format": "email", "x-pii": "contact"}},
        "v1.0.json#/properties/mail: is hashed, but the contract does not accept 64",
    ),
    "dropped and demanded": (
        {"number": {"type": "string", "x-pii": "government-id"}},
        "v1.0.json#/properties/number: is dropped, but the contract demands a value",
    ),
    "a part that is dropped and demanded": (
        {"person": {**PERSON, "properties": {"number": {"type": "string", "x-pii": "government-id"}}}},
        "v1.0.json#/properties/person: /properties/person/properties/number is dropped, but the contract demands",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_an_older_contract_would_not_hide_is_refused_by_plan(case: str, tmp_path: Path) -> None:
    """Each fault names the older contract's field; what the source file says of fields is said of the newest's."""
    former, message = FAULTS[case]
    with pytest.raises(DocumentError) as refused:
        compiled(tmp_path, former={**FORMER, **former})
    assert message in str(refused.value)


def test_a_source_whose_older_major_alone_hashes_needs_the_key(tmp_path: Path) -> None:
    """It may begin and end while the source runs: nothing that is kept was hashed."""
    newest = {name: {**schema, **NONE} for name, schema in PROPERTIES.items() if name != "person"}
    former = {name: FORMER[name] for name in ("id", "remark")}
    changes = ("phone: /doc/phone, person: /doc/person", "phone: /doc/phone")
    both = compiled(tmp_path, changes, newest=newest, former=former)
    ended = replace(both, aggregates=(replace(both.aggregates[0], former=()),))

    assert (is_hashing(both), is_hashing(ended)) == (True, False)
    bound = replace(both, hash_key_id=KEY.id)
    with pytest.raises(StopError, match="HASH_KEY_WRONG"):
        compile_mapping(bound, {})
    _refuse_uncaptured(bound, ended)
    _refuse_uncaptured(ended, bound)
    with pytest.raises(ConfigurationError, match="keeps personal data as it was declared before"):
        _refuse_uncaptured(replace(both, hash_key_id=HashKey(b"x" * 32).id), bound)


def test_the_definition_keeps_what_older_majors_need(tmp_path: Path) -> None:
    """Workers need no project folder; stated events have the older entity's schema there."""
    definition = compiled(tmp_path)
    ((older,), (newest,)) = definition.aggregates[0].former, definition.aggregates[0].events

    assert SourceDefinition.from_json(definition.to_json()) == definition
    (moved,) = older.events
    assert moved.dataschema == "urn:rowcast:schema:shop.customer:1.0+moved:1.0"
    assert newest.dataschema == "urn:rowcast:schema:shop.customer:2.0+moved:1.0"
    assert "remark" in moved.value_schema["properties"]["after"]["properties"]
    assert "to" in moved.value_schema["properties"]["data"]["properties"]
