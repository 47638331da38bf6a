"""The end of a major: what `schemas check` asks, notes and refuses, and where else it shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_catalogue import Page
from test_consumer_parts import write_part
from test_schema_changes import ENTITY, Command, commit, project, schemas, write_version

from rowcast.cli.main import main
from rowcast.contracts.checking import check_rules
from rowcast.contracts.contract import contract_of
from rowcast.deprecation import faults

__all__ = ["project", "schemas"]

SOURCE = "source: shop\ndatabase: shop\naggregates:\n  order: {table: public.orders, id: id, contract: v2.0, %s}\n"
MIGRATION = "https://shop.example/orders-2"


def day(offset: int) -> str:
    """So many days from today, UTC."""
    return (datetime.now(UTC).date() + timedelta(days=offset)).isoformat()


def deprecate(project: Path, sunset: str, **more: str) -> None:
    """Say that major 1 ends."""
    write_version(project, "1.0", {**ENTITY, "x-deprecation": {"sunset": sunset, **more}})


def publish(project: Path, former: str = "former: {v1.0: order_to_v1}") -> None:
    """A source that publishes v2.0, and beside it what *former* says."""
    write_version(project, "2.0", ENTITY)
    (project / "connectors").mkdir(exist_ok=True)
    (project / "connectors/shop.yaml").write_text(SOURCE % former)
    (project / "connectors/shop.py").write_text("def order_to_v1(order):\n    return order\n")


def test_before_its_last_day_a_published_major_is_a_note(schemas: Command) -> None:
    """Who publishes it, who reads it, and how long still; the exit code stays 0."""
    publish(schemas.project)
    deprecate(schemas.project, day(30))
    write_part(schemas.project, "billing", {"id": {}})

    code, text = schemas("check", "--against", "main")
    _code, annotated = schemas("check", "--format", "github")
    _code, document = schemas("check", "--json")

    told = f"shop.order.v1 is deprecated: its last day is {day(30)}, in 30 days; published by shop; read by billing"
    assert code == 0, text
    assert f"note: {told}\n2 contracts, 0 findings" in text
    assert annotated.startswith(f"::notice file={schemas.project}/schemas/shop/order/v1.0.json::{told}")
    (note,) = json.loads(document)["notes"]
    assert (note["event"], note["sunset"], note["days_left"]) == ("shop.order.v1", day(30), 30)
    assert (note["producers"], note["consumers"]) == (["shop"], ["billing"])


@pytest.mark.parametrize(("offset", "rules"), [(0, []), (-1, ["SUNSET_PASSED"])])
def test_past_its_last_day_a_major_may_not_be_published(schemas: Command, offset: int, rules: list[str]) -> None:
    """The last day itself is still one; when the source file lets it go, all is well."""
    publish(schemas.project)
    deprecate(schemas.project, day(offset))

    assert schemas.rules() == rules
    (schemas.project / "connectors/shop.yaml").write_text(SOURCE % "where: {}")
    assert schemas.findings("check") == []


def test_a_past_major_can_be_tolerated_for_a_while(schemas: Command) -> None:
    """With a reason and a last day, like every finding about versions."""
    publish(schemas.project)
    deprecate(schemas.project, day(-1))
    (schemas.project / "schemas/ignore.toml").write_text(
        f'[[ignore]]\nrule = "SUNSET_PASSED"\naggregate = "shop/order"\nreason = "billing moves"\nuntil = {day(5)}\n'
    )

    assert schemas.findings("check") == []


def test_a_last_day_may_be_put_off_and_not_brought_forward(schemas: Command) -> None:
    """Somebody has made plans by it; saying it first, or taking it back, is no change of the contract."""
    deprecate(schemas.project, day(50))
    assert schemas.findings("check", "--against", "main") == []
    commit(schemas.project)

    deprecate(schemas.project, day(60))
    assert schemas.rules("--against", "HEAD") == []
    deprecate(schemas.project, day(40))
    assert schemas.rules("--against", "HEAD") == ["SUNSET_SHORTENED"]
    write_version(schemas.project, "1.0", ENTITY)
    assert schemas.rules("--against", "HEAD") == []


def test_the_newest_version_of_a_major_speaks_for_it(schemas: Command) -> None:
    """An older file is not asked."""
    publish(schemas.project)
    deprecate(schemas.project, day(-1))
    write_version(schemas.project, "1.1", ENTITY)

    assert schemas.findings("check") == []


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ("2027-06-30", "must be an object"),
        ({}, "needs the day of its sunset"),
        ({"sunset": "30.6.2027"}, "sunset must be a day"),
        ({"sunset": "2027-02-30"}, "sunset must be a day"),
        ({"sunset": 20270630}, "sunset must be a day"),
        ({"sunset": "２027-06-30"}, "sunset must be a day"),
        ({"sunset": "2027-06-30", "since": "2027-07-01"}, "since is behind the sunset"),
        ({"sunset": "2027-06-30", "migration": "see the wiki"}, "migration must be the absolute URI"),
        ({"sunset": "2027-06-30", "migration": "https://a/\r\nb"}, "migration must be the absolute URI"),
        ({"sunset": "2027-06-30", "until": "x"}, "has an unknown 'until'"),
    ],
)
def test_what_is_no_end_is_refused(declared: Any, fault: str) -> None:
    """It would go into the headers of every event."""
    path = Path("schemas/shop/order/v1.0.json")
    contract = contract_of(path, {**ENTITY, "x-deprecation": declared})

    found = [each for each in check_rules(contract) if each.rule == "DEPRECATION_INVALID"]

    assert fault in " ".join(each.message for each in found)
    assert contract.deprecation is None
    assert faults({"sunset": "2027-06-30", "since": "2027-06-30", "migration": MIGRATION}) == []


def test_a_new_major_begins_whole_and_without_an_end(schemas: Command) -> None:
    """Its first version requires every field, and is not deprecated because the one before is."""
    optional = {**ENTITY, "properties": {**ENTITY["properties"], "note": ENTITY["properties"]["id"]}}
    write_version(schemas.project, "1.1", {**optional, "x-deprecation": {"sunset": day(9)}})
    commit(schemas.project)

    code, text = schemas("new-version", "shop/order", "--major")

    entity = json.loads((schemas.project / "schemas/shop/order/v2.0.json").read_text())
    assert code == 0, text
    assert entity["required"] == ["id", "status", "note"]
    assert "x-deprecation" not in entity


def test_pages_documents_and_types_tell_the_last_day(schemas: Command, tmp_path: Path) -> None:
    """Catalogue, AsyncAPI and generated types of the major that ends; the others say nothing."""
    publish(schemas.project)
    deprecate(schemas.project, "2027-06-30", since="2027-01-01", migration=MIGRATION)
    for verb in ("catalogue", "codegen"):
        assert main(["--project", str(schemas.project), "schemas", verb, "--out", str(tmp_path / verb)]) == 0
    document = json.loads(schemas("asyncapi")[1])

    index, page = Page(tmp_path / "catalogue/index.html"), Page(tmp_path / "catalogue/shop.order.v1.html")
    told = f"since 2027-01-01; its last day is 2027-06-30; see {MIGRATION}"
    assert "shop.order.v1deprecated, until 2027-06-30" in index.text
    assert told in page.text
    assert "deprecated" not in Page(tmp_path / "catalogue/shop.order.v2.html").text
    assert "Deprecated: its last day is 2027-06-30." in (tmp_path / "codegen/shop/order_v1.py").read_text()
    assert document["channels"]["shop.order.v1"]["x-deprecation"]["sunset"] == "2027-06-30"
    messages = document["components"]["messages"]
    assert "ce_deprecationsunset" in messages["shop.order.v1"]["headers"]["properties"]
    assert "ce_deprecated" not in messages["shop.order.v2"]["headers"]["properties"]
    assert document["components"]["schemas"]["shop.order.v1"]["deprecated"] is True
