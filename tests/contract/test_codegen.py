"""Generated types and event factories: right for the contracts of this repository, and for hostile ones."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schema_generator import Schemas
from test_schema_changes import ENTITY, Command, changed, project, schemas, write_version

from rowcast.contracts.codegen import drift, generated_files, write
from rowcast.contracts.contract import Contract, contract_of, contract_paths, load_contract
from rowcast.contracts.factory import EventFactory
from rowcast.contracts.field_row import field_rows
from rowcast.contracts.python_type import module_text
from rowcast.contracts.readership import Readership
from rowcast.errors import ConfigurationError, ContractViolationError
from rowcast.event import EventKind, decode

__all__ = ["project", "schemas"]

REPOSITORY = Path(__file__).resolve().parents[2]
NOTHING = {"description": "x", "x-pii": "none"}
HOSTILE: dict[str, Any] = {
    "class": {"type": "string", **NOTHING},
    "a-b": {"type": ["integer", "null"], "description": 'Ends with "', "x-pii": "email"},
    "__private": {"type": "boolean", **NOTHING},
    "quote": {"enum": ['a"b', "c'd", "e\\f", "\u202e", "\ud83d\ude00", None, 1, True, 1.5, [1]], **NOTHING},
    "text": {
        "type": "string",
        "description": '""" \\ \\" \n import os\u202e \x00',
        "deprecated": True,
        "x-pii": "none",
    },
    "Any": {"type": "array", "items": {"$ref": "#/$defs/Literal"}, **NOTHING},
    "tree": {"$ref": "#/$defs/tree", **NOTHING},
    "pay": {
        "description": "x",
        "oneOf": [
            {"type": "object", "required": ["kind"], "properties": {"kind": {"const": kind, **NOTHING}}}
            for kind in ("card", "\u202e", 'x"')
        ]
        + [{"type": "null"}],
    },
    "map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}, **NOTHING},
    "free": {**NOTHING},
    "": {"type": ["object", "null"], "properties": {"import": {"type": "null", **NOTHING}}, "description": "x"},
    "日本": {"type": "object", **NOTHING},
}
DEFINITIONS = {
    "Literal": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Literal", **NOTHING}, "b b": {**NOTHING}}},
    "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
}


def contract_with(properties: dict[str, Any], definitions: dict[str, Any], aggregate: str = "any") -> Contract:
    entity = {**ENTITY, "properties": properties, "required": list(properties)[::2], "$defs": definitions}
    return contract_of(Path(f"shop/{aggregate}/v1.1.json"), {**entity, "x-ancestors": ["class", "house"]})


CONTRACTS = [load_contract(path) for path, _match in contract_paths(REPOSITORY / "schemas")]
TRIED = [*CONTRACTS, contract_with(HOSTILE, DEFINITIONS)]
USE = """
from typing import assert_type

from shop.any_v1 import Any_2 as Any, AnyEvent
from inventory.item_v1 import Item, ItemEvent


def read(item: Item, event: ItemEvent, other: Any) -> str | None:
    assert_type(item["price"], str | None)
    after = event["after"]
    assert_type(event["ancestors"]["holdings"], list[str] | None)
    assert_type(event["before"], "ItemBefore | None")
    if after is None:
        return None
    return after["status"]


def wrong(item: Item) -> int:
    item["prize"]
    return item["status"]
"""


def test_the_types_are_as_strict_mypy_wants_them(tmp_path: Path) -> None:
    """Also of names that Python keeps for itself; what is misread is found, and nothing else."""
    files = generated_files(TRIED)
    write(tmp_path, files, drift(tmp_path, files))
    (tmp_path / "__init__.py").unlink()
    (tmp_path / "use.py").write_text(USE.replace("Item, ItemEvent", "Item, ItemBefore, ItemEvent"))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--no-error-summary",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if ": error: " in line]

    assert [line.split("[")[-1] for line in told] == ["typeddict-item]", "return-value]"], done.stdout + done.stderr


def loaded(contract: Contract, folder: Path) -> dict[str, Any]:
    """What the module of *contract* holds."""
    path = folder / f"{contract.aggregate}_v{contract.major}.py"
    path.write_text(module_text(contract), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


@pytest.mark.parametrize("contract", TRIED, ids=lambda contract: contract.aggregate)
def test_a_module_can_be_imported_and_names_the_fields(contract: Contract, tmp_path: Path) -> None:
    """Every field, required or not as the contract says; what a text says is never run."""
    names = loaded(contract, tmp_path)
    entity = names[{"any": "Any_2"}.get(contract.aggregate, contract.aggregate.capitalize())]

    assert set(entity.__annotations__) == set(contract.properties)
    assert entity.__required_keys__ == set(contract.entity["required"])
    assert names["TOPIC"] == f"{contract.domain}.{contract.aggregate}.v{contract.major}"
    assert "os" not in names


def test_types_say_what_the_contract_says(tmp_path: Path) -> None:
    """Closed lists are literals, open ones and patterns are texts, null is told, nested objects have a name."""
    names = loaded(contract_with(HOSTILE, DEFINITIONS), tmp_path)
    hints = typing.get_type_hints(names["Any_2"], globalns=names)

    assert typing.get_args(hints["quote"])[0].__args__ == ('a"b', "c'd", "e\\f", "\u202e", "\ud83d\ude00", 1, True)
    assert hints["a-b"] == int | None
    assert typing.get_type_hints(hints["pay"].__args__[0], globalns=names) == {"kind": typing.Literal["card"]}
    assert names["Any_2"].__name__ == "Any_2"


@pytest.mark.parametrize("seed", range(20))
def test_random_contracts_give_modules(seed: int, tmp_path: Path) -> None:
    """Whatever the profile allows can be written down, and is the same each time."""
    document = Schemas(seed).document()
    contract = contract_with(document["properties"], document.get("$defs", {}), "thing")

    assert "Thing" in loaded(contract, tmp_path)
    assert module_text(contract) == module_text(contract)


def test_drift_is_named(project: Path, schemas: Command, tmp_path: Path) -> None:
    """A changed contract, an edit, a lost file and one without contract; nothing is written by the check."""
    out = str(tmp_path / "events")
    assert schemas("codegen", "--out", out)[0] == 0
    assert schemas("codegen", "--out", out, "--check") == (0, "3 files, 0 changes\n")
    module = tmp_path / "events/shop/order_v1.py"
    text = module.read_text()
    write_version(project, "1.1", changed("properties/note", {"type": "string", **NOTHING}))
    code, told = schemas("codegen", "--out", out, "--check")

    assert (code, told) == (1, f"differs   {module}\n3 files, 1 change\n")
    assert module.read_text() == text
    assert schemas("codegen", "--out", out)[0] == 0
    module.rename(module.with_name("gone_v1.py"))
    assert json.loads(schemas("codegen", "--out", out, "--check", "--json")[1])["changes"] == [
        {"file": str(module.with_name("gone_v1.py")), "state": "stale"},
        {"file": str(module), "state": "missing"},
    ]
    assert schemas("codegen", "--out", out)[0] == 0
    assert not module.with_name("gone_v1.py").exists()


def test_what_was_not_generated_is_left_alone(project: Path, schemas: Command, tmp_path: Path) -> None:
    """A package of the user's own keeps its files; one in the way is named."""
    (tmp_path / "events/shop").mkdir(parents=True)
    own = tmp_path / "events/__init__.py"
    own.write_text("MINE = 1\n")
    assert schemas("codegen", "--out", str(tmp_path / "events"))[0] == 0
    module = tmp_path / "events/shop/order_v1.py"
    module.write_text("MINE = 2\n")
    code, told = schemas("codegen", "--out", str(tmp_path / "events"))

    assert (code, f"{module}: was not generated" in told) == (2, True)
    assert (own.read_text(), module.read_text()) == ("MINE = 1\n", "MINE = 2\n")


def test_a_contract_outside_the_profile_gives_no_types(project: Path, schemas: Command, tmp_path: Path) -> None:
    """The finding is told, and nothing is written."""
    write_version(project, "1.1", changed("properties/id/if", {}))
    code, told = schemas("codegen", "--out", str(tmp_path / "events"))

    assert (code, "UNSUPPORTED_KEYWORD" in told, (tmp_path / "events").exists()) == (2, True, False)


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.aggregate)
def test_made_events_are_valid_and_readable(contract: Contract, kind: EventKind) -> None:
    """Every one validates, is what its kind says, and survives the way over the wire."""
    validator = jsonschema_rs.Draft202012Validator(contract.value_schema(), validate_formats=True)
    factory = EventFactory(contract, seed=5)
    events = [factory.event(kind) for _ in range(20)]

    assert all(validator.is_valid(event.value()) for event in events)
    assert {(event.after is None, bool(event.before)) for event in events} <= {
        EventKind.CREATED: {(False, False)},
        EventKind.SNAPSHOT: {(False, False)},
        EventKind.UPDATED: {(False, True)},
        EventKind.DELETED: {(True, True)},
    }[kind]
    assert len({event.identity for event in events}) == 20
    assert [decode(*event.encode()) for event in events] == events


def test_a_seed_gives_the_same_events() -> None:
    """And another one gives others."""
    first, again, other = (EventFactory.of(REPOSITORY / "schemas", "inventory.item.v1", seed) for seed in (1, 1, 2))
    made = [[factory.event("updated") for _ in range(5)] for factory in (first, again, other)]

    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.parametrize("seed", range(20))
def test_random_contracts_have_events(seed: int) -> None:
    """What can be made is valid; what cannot is told."""
    document = Schemas(seed).document()
    contract = contract_with(document["properties"], document.get("$defs", {}), "thing")
    validator = jsonschema_rs.Draft202012Validator(contract.value_schema(), validate_formats=True)
    factory = EventFactory(contract)

    assert all(validator.is_valid(factory.value(kind)) for kind in EventKind)


def test_the_code_of_the_page_runs(schemas: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied word for word, with the contracts of this repository."""
    page = (REPOSITORY / "docs/reference/contracts.md").read_text()
    types, events = (block.partition("```")[0] for block in page.split("```python\n")[1:3])
    monkeypatch.chdir(REPOSITORY)
    files = generated_files(CONTRACTS)
    write(tmp_path / "shop_events", files, drift(tmp_path / "shop_events", files))
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {}
    exec(types + events, names)  # noqa: S102 - the page's own code

    assert names["shelf_mark"](names["created"].after).startswith("inventory.item.v1: ")
    assert names["checked_out"].after["status"] == "Checked out"
    assert names["value"]["after"] is None


def test_definitions_that_all_refer_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    """Types, events, the catalogue's rows and a consumer's part are made of a dozen of them in no time."""
    names = [f"d{number}" for number in range(12)]
    inner = {name: {"$ref": f"#/$defs/{name}"} for name in names}
    definitions = {name: {"type": "object", "properties": inner} for name in names}
    definitions |= {"any": {"oneOf": [*inner.values(), {"type": "array", "items": {"$ref": "#/$defs/any"}}]}}
    contract = contract_with({**inner, "any": {"$ref": "#/$defs/any"}}, definitions, "thing")
    path = tmp_path / "consumers/app/shop.thing.v1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**contract.entity, "required": []}))
    start = time.process_time()
    loaded(contract, tmp_path)
    EventFactory(contract).value("updated", {"any": []})
    rows = len(list(field_rows(contract)))
    readership = Readership(tmp_path / "consumers", tmp_path, [contract])

    assert time.process_time() - start < 20
    assert rows < 50_000
    assert len(readership.parts) == 1


def test_fields_are_taken_as_given() -> None:
    """A test says what matters to it; what the contract does not allow is refused without telling the value."""
    factory = EventFactory.of(REPOSITORY / "schemas", "inventory.item.v1")

    assert factory.event("snapshot", {"status": "On loan"}, id="7", version=3).after["status"] == "On loan"  # type: ignore[index]  # a snapshot has one
    assert factory.event(id="7").identity.id_text == "7"
    with pytest.raises(ContractViolationError, match=r"^with these fields it is not valid: /after/status: ") as raised:
        factory.value("created", {"status": 4711})
    assert "4711" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="no contract"):
        EventFactory.of(REPOSITORY / "schemas", "inventory.item.v9")
