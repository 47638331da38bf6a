"""The contracts that a consumer holds events to, without a broker."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_fixture import make_event

from rowcast.consumer import Consumer, DomainEvent
from rowcast.consumer.conformance import conformance
from rowcast.errors import ConfigurationError, ContractViolationError

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
EXAMPLES = SCHEMAS / "inventory/item/examples/v1.0"


def event(value: dict[str, Any]) -> DomainEvent:
    return replace(make_event("inventory", "1", 2), **value)


def examples(verdict: str) -> list[Any]:
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in (EXAMPLES / verdict).iterdir()]


@pytest.mark.parametrize("value", examples("accepted"))
def test_an_event_by_its_contract_passes(value: dict[str, Any]) -> None:
    """Also with a field that only a newer minor version has, and stated under a name that has no contract here."""
    check = conformance(SCHEMAS, "inventory", "item", 1)

    check(event(value))
    if value["after"] is not None:
        check(event({**value, "after": {**value["after"], "new_field": 1}}))
    check(replace(event(value), stated="inspected", data={"by": "Ann"}))


@pytest.mark.parametrize("value", examples("rejected"))
def test_an_event_against_its_contract_does_not(value: dict[str, Any]) -> None:
    """Whatever the contract refuses."""
    with pytest.raises(ContractViolationError):
        conformance(SCHEMAS, "inventory", "item", 1)(event(value))


def test_the_newest_minor_version_counts_and_data_are_checked_where_they_are_declared(tmp_path: Path) -> None:
    """The message names place and rule, and no value."""
    folder = tmp_path / "shop/item"
    folder.mkdir(parents=True)
    entity = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    (folder / "v1.0.json").write_text(json.dumps(entity))
    entity["properties"] = {"id": {"type": "string"}, "n": {"type": "integer"}}
    (folder / "v1.10.json").write_text(json.dumps(entity))
    stated = tmp_path / "shop/item.sold"
    stated.mkdir()
    (stated / "v1.0.json").write_text(
        json.dumps({"type": "object", "properties": {"price": {"type": "string", "pattern": "^[0-9]+$"}}})
    )
    check = conformance(tmp_path, "shop", "item", 1)

    check(make_event("shop", "1", 1))
    with pytest.raises(ContractViolationError, match=r"^/after/n: ") as refused:
        check(make_event("shop", "1", 1, after={"id": "1", "n": "secret"}))
    assert "secret" not in str(refused.value)
    check(replace(make_event("shop", "1", 2), stated="sold", data={"price": "7"}))
    with pytest.raises(ContractViolationError, match=r"^/data/price: "):
        check(replace(make_event("shop", "1", 2), stated="sold", data={"price": "secret"}))


def test_a_handler_without_its_contract_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """The message names the folder and the major; database and broker are not asked, they do not exist."""
    shutil.copytree(SCHEMAS / "inventory/item", tmp_path / "inventory/item")
    consumer = Consumer("orders", database="host=invalid.", brokers="invalid.:1")
    consumer.check_against(tmp_path)

    @consumer.on("inventory.item", major=2)
    def item_changed(event: DomainEvent, connection: psycopg.Connection) -> None: ...

    with pytest.raises(ConfigurationError, match=r"no contract of major 2.*inventory/item|inventory/item.*major 2"):
        consumer.run()
