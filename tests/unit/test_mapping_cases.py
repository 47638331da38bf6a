"""Committed cases of a mapping: rows in, events out, without any database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_app.case import main

SOURCE = """source: shop
database: shop
references:
  status: {table: public.status, key: id, value: name}
aggregates:
  order:
    table: public.orders
    id: id
    where: {draft: false}
    fields: {status: {column: status_id, reference: status}, place: /doc/place}
  line:
    table: public.line
    document: doc
    id: /doc/id
    parent: {aggregate: order, column: /doc/order}
"""
TABLES = {
    "public.orders": {
        "key": ["id"],
        "columns": {
            "id": {"type": "bigint"},
            "status_id": {"type": "smallint"},
            "draft": {"type": "boolean"},
            "doc": {"type": "jsonb", "nullable": True},
        },
    },
    "public.line": {"key": ["pk"], "columns": {"pk": {"type": "bigint"}, "doc": {"type": "jsonb"}}},
    "public.status": {"key": ["id"], "columns": {"id": {"type": "smallint"}, "name": {"type": "text"}}},
}


def write_contract(project: Path, aggregate: str, above: list[str], properties: dict[str, Any]) -> None:
    path = project / "schemas" / "shop" / aggregate / "v1.0.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entity = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rowcast:schema:shop.{aggregate}:1.0:entity",
        "title": aggregate,
        "description": "-",
        "x-ancestors": above,
        "type": "object",
        "required": list(properties),
        "properties": {name: {"type": kind, "description": "-", "x-pii": "none"} for name, kind in properties.items()},
    }
    path.write_text(json.dumps(entity))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a source, its contracts, and a place for cases."""
    (tmp_path / "connectors" / "shop.cases").mkdir(parents=True)
    (tmp_path / "connectors" / "shop.yaml").write_text(SOURCE)
    write_contract(tmp_path, "order", [], {"id": "integer", "status": "string", "place": ["string", "null"]})
    write_contract(tmp_path, "line", ["order"], {"id": "string", "amount": "integer"})
    return tmp_path


def order(id_: int, status: int, *, draft: bool = False) -> dict[str, Any]:
    return {"id": id_, "status_id": status, "draft": draft, "doc": '{"place": "Oslo"}'}


def write_case(project: Path, *steps: dict[str, Any]) -> None:
    path = project / "connectors" / "shop.cases" / "orders.json"
    path.write_text(json.dumps({"tables": TABLES, "steps": steps}))


def run(project: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([f"--project={project}", "shop"])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


STEPS: tuple[dict[str, Any], ...] = (
    {
        "write": {
            "public.status": [{"id": 1, "name": "open"}],
            "public.orders": [order(1, 1), order(2, 1, draft=True)],
            "public.line": [{"pk": 7, "doc": '{"id": "l1", "order": 1, "amount": 3}'}],
        },
        "events": [
            {"aggregate": "order", "id": "1", "kind": "created", "after": {"id": 1, "status": "open", "place": "Oslo"}},
            {
                "aggregate": "line",
                "id": "l1",
                "kind": "created",
                "after": {"id": "l1", "amount": 3},
                "ancestors": {"order": ["1"]},
            },
        ],
    },
    {
        "write": {"public.status": [{"id": 1, "name": "paid"}]},
        "events": [
            {
                "aggregate": "order",
                "id": "1",
                "kind": "updated",
                "after": {"id": 1, "status": "paid", "place": "Oslo"},
                "before": {"status": "open"},
            }
        ],
    },
    {
        "write": {"public.orders": [order(2, 9)]},
        "delete": {"public.line": [{"pk": 7}]},
        "events": [{"aggregate": "line", "id": "l1", "kind": "deleted", "after": None, "version": 2}],
        "refused": [
            {"aggregate": "order", "id": "2", "reason": "status_id: reference 'status' has no row with this key"}
        ],
    },
)


def test_a_case_that_holds_passes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several transactions, references, filter, documents and refusals; version, before and ancestors where given."""
    write_case(project, *STEPS)
    assert run(project, capsys) == (0, "passed  shop  orders\n1 cases, 0 failed\n")


def test_a_case_that_does_not_hold_shows_the_difference(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and the lines that differ."""
    wrong = json.loads(json.dumps(STEPS[0]))
    wrong["events"][0]["after"]["place"] = "Bergen"
    write_case(project, wrong)
    code, text = run(project, capsys)
    assert code == 1
    assert '-    "place": "Bergen",' in text
    assert '+    "place": "Oslo",' in text
    assert text.endswith("1 cases, 1 failed\n")


def test_older_majors_are_part_of_a_case(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their events stand behind that of the newest major, and say which they are of."""
    (project / "schemas/shop/line/v1.0.json").rename(project / "schemas/shop/line/v2.0.json")
    path = project / "schemas/shop/line/v2.0.json"
    path.write_text(path.read_text().replace("line:1.0", "line:2.0"))
    write_contract(project, "line", ["order"], {"id": "string", "cents": "integer"})
    text = SOURCE.replace(
        "    document: doc\n", "    document: doc\n    contract: v2.0\n    former: {v1.0: in_cents}\n"
    )
    (project / "connectors/shop.yaml").write_text(text)
    (project / "connectors/shop.py").write_text(
        "def in_cents(line):\n    return {'id': line['id'], 'cents': 100 * line['amount']}\n"
    )
    step = json.loads(json.dumps(STEPS[0]))
    step["events"].append(
        {"aggregate": "line", "id": "l1", "kind": "created", "major": 1, "after": {"id": "l1", "cents": 300}}
    )
    write_case(project, step)
    assert run(project, capsys) == (0, "passed  shop  orders\n1 cases, 0 failed\n")
    step["events"][-1]["after"]["cents"] = 3
    write_case(project, step)
    assert run(project, capsys)[0] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"tables": {}}', '{"tables": {"public.orders": {}}, "steps": []}'])
def test_what_is_no_case_is_an_error(project: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Exit code 2, as for a wrong source file or a project without cases."""
    (project / "connectors" / "shop.cases" / "odd.json").write_text(text)
    code, words = run(project, capsys)
    assert code == 2
    assert words.startswith("rowcast: ")
    (project / "connectors" / "shop.cases" / "odd.json").unlink()
    assert run(project, capsys)[0] == 2
