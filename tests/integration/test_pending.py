"""What waits for its event in the control database, and in which order it goes out."""

from __future__ import annotations

import psycopg
import pytest
from stack_fixture import TestProject

from stream_app.contract import compile_validators
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.state import Key, View
from stream_app.core.statement import Statement
from stream_app.lease import claim, read_definition
from stream_app.pending import Pending
from stream_app.position import Position, read_position
from stream_app.source_record import SourceRecord
from stream_app.stated import StatedEvents
from stream_app.step import Step
from stream_app.store import Store

TYPES = ("instance", "holdings", "item")
# (type, id, there): nothing was ever told of those that are not, unless something is noted below.
KNOWN = [
    *(("instance", f"i{number}", number != 2) for number in range(5)),
    *(("holdings", f"h{number}", True) for number in range(7)),
    *(("item", f"t{number}", True) for number in range(3)),
]
NOTED = [("instance", "i2"), ("instance", "unknown"), ("holdings", "h1"), ("holdings", "h5"), ("item", "t0")]


def mapping_of(connection: psycopg.Connection, project: TestProject) -> SourceMapping:
    definition, _ = read_definition(connection, project.name)
    return compile_mapping(definition, compile_validators(definition))


def names_of(mapping: SourceMapping) -> list[str]:
    return [each.name for each in mapping.by_rank]


def walk(pending: Pending, limit: int, whole: tuple[str, ...]) -> list[Key]:
    found: list[Key] = []
    while keys := pending.next(limit, found[-1] if found else None, whole):
        assert len(keys) <= limit
        found += keys
    return found


@pytest.mark.guarantee("Order per aggregate")
def test_types_that_go_out_whole_are_walked_through_among_what_is_noted(project: TestProject) -> None:
    """Whatever the size of the chunks; also what is noted of a whole type and not known: something was stated of it."""
    project.apply()
    with project.control() as control:
        mapping = mapping_of(control, project)
        assert [each.name for each in mapping.by_rank if each.name in TYPES] == list(TYPES), "parents' types first"
        for name, id_text, there in KNOWN:
            row = (project.name, name, id_text, there)
            control.execute(
                "INSERT INTO rowcast.aggregate (source, aggregate, id_text, present) VALUES (%s, %s, %s, %s)", row
            )
        pending = Pending(control, mapping)
        pending.save(Step(pending=[Key(*each) for each in NOTED]), View())
        there = {Key(name, id_text) for name, id_text, known in KNOWN if known}
        noted = {Key(*each) for each in NOTED}
        for whole in ((), ("instance",), ("holdings",), ("item",), ("instance", "item"), TYPES):
            wanted = {key for key in there if key.aggregate in whole} | noted
            ordered = sorted(wanted, key=lambda key: (mapping.by_type[key.aggregate].rank, key.id_text))
            for limit in (1, 2, 3, 100):
                assert walk(pending, limit, whole) == ordered, (whole, limit)

        chunks = [pending.next(4, None, TYPES)]
        chunks.append(pending.next(4, chunks[0][-1], TYPES))
        for before, chunk in zip([None, chunks[0][-1]], chunks, strict=True):
            pending.save(Step(pending_done=chunk[-1], pending_behind=before), View())
        assert walk(pending, 9, ()) == [Key("holdings", "h5"), Key("item", "t0")]


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_is_pending_keeps_its_types_when_others_come_and_go(project: TestProject) -> None:
    """A claim that has other types finds what a former one left under their names; of those that went, nothing."""
    project.apply()
    with project.control() as control:
        mapping = mapping_of(control, project)
        found = claim(control, project.name, "one")
        assert found is not None
        store, pending, stated = (
            Store(control, found[0], mapping, mapping.definition.revision),
            Pending(control, mapping),
            StatedEvents(control, mapping),
        )
        time, sub_position = "2026-01-01T00:00:00Z", {"lsn": 77, "time": "", "last": [names_of(mapping)[0], "x"]}
        position = Position(
            change_log_topic_id="t", next_offset=5, commit_lsn=77, end_offsets={}, sub_position=sub_position
        )
        store.commit(View(), Step(), None, position)
        assert store.renumber(SourceRecord(control, project.name).ranked(), position, time) == position
        names = [each.name for each in mapping.by_rank]
        assert SourceRecord(control, project.name).ranked() == names

        former = ["gone", *reversed(names)]
        noted = [(name, f"{name}{number}") for name in former for number in range(3)]
        for rank, name in enumerate(former):
            for each, id_text in noted:
                if each == name:
                    row = (project.name, rank, id_text)
                    control.execute("INSERT INTO rowcast.pending (source, rank, id_text) VALUES (%s, %s, %s)", row)
        key = Key(names[0], f"{names[0]}1")
        stated.wait([Statement(7, key, "noted", b"{}", False)])
        control.execute(
            "UPDATE rowcast.statement SET rank = 9; INSERT INTO rowcast.statement"
            " SELECT source, 8, 0, 'gone', 'gone1', event, data, former, staged, reason, record FROM rowcast.statement"
        )
        after = store.renumber(former, position, time)
        assert after == read_position(control, project.name), (
            "a claim that dies now leaves what the next one has to know"
        )
        assert after.sub_position == {"lsn": 77, "time": ""}, "nothing is passed over that stands earlier now"
        assert walk(pending, 100, ()) == [Key(*each) for name in names for each in noted if each[0] == name]
        assert [each.event for each in stated.of([key])[1][key]] == ["noted"]
        refused = "SELECT lsn, aggregate, reason FROM rowcast.refused_statement"
        assert control.execute(refused).fetchall() == [(77, "gone", "its type is declared no more")]
        assert control.execute("SELECT count(*) FROM rowcast.statement").fetchone() == (1,)
