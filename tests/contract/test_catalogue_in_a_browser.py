"""The catalogue in a real browser, Debian's Chromium: searched, read, and attacked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_catalogue import ATTACK, hostile
from test_codegen import contract_with

from rowcast.contracts.catalogue import catalogue_entries, write_catalogue
from rowcast.contracts.contract import Contract, load_contract

REPOSITORY = Path(__file__).resolve().parents[2]
BROWSER = REPOSITORY / "tests/browser"
TYPES = 200
SEARCHES = ("", "type_150", "WORD 7", "no such event", "personal-number", "billing", "<script>")
PAGES = ("shop.type_007.v1.html", "shop.any.v1.html", "inventory.instance.v1.html")


def chromium() -> str:
    """The program."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("Chromium is needed; on Debian: apt-get install chromium")
    return found


def numbered(number: int) -> list[Contract]:
    """Two versions of an event type; the newer one has a field more."""
    field = {"type": ["string", "null"], "description": f"What is told by word {number}.", "x-pii": "none"}
    person = {**field, "x-pii": "personal-number", "examples": ["1-2"]} if number % 10 == 7 else field
    first = contract_with({"id": {**field, "type": "integer"}, "told": person}, {})
    newer = contract_with({"id": {**field, "type": "integer"}, "told": person, "added": field}, {})
    name = {"domain": "shop", "aggregate": f"type_{number:03}"}
    return [replace(first, **name, major=1, minor=0), replace(newer, **name, major=1, minor=1)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of 200 event types, one of them hostile, and those of this repository."""
    out = tmp_path_factory.mktemp("site")
    contracts = [version for number in range(TYPES) for version in numbered(number)]
    definitions = {"x": {"type": "object", "properties": {"next": {"$ref": "#/$defs/x"}, ATTACK: {"type": "string"}}}}
    attacking = contract_with(hostile(), definitions)
    entity = {**attacking.entity, "title": ATTACK, "description": ATTACK}
    contracts.append(replace(attacking, entity=entity, domain="shop", aggregate="any", major=1, minor=0))
    contracts += [load_contract(each) for each in (REPOSITORY / "schemas/inventory").glob("*/v1.0.json")]
    producers = {"shop.type_150.v1": ["billing"], "shop.any.v1": [ATTACK]}
    write_catalogue(out, catalogue_entries(contracts, producers, []))
    return out


@pytest.fixture(scope="module")
def seen(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw of it; its pictures stay in the folder of the test's files."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("Node 20 or newer and npm are needed; on Debian: apt-get install nodejs npm")
    folder, shots = tmp_path_factory.mktemp("browser") / "look", tmp_path_factory.mktemp("shots")
    shutil.copytree(BROWSER, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=folder, check=True, capture_output=True, timeout=240)
    done = subprocess.run(
        ["node", "look.js", chromium(), str(site), str(shots)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "LOOK_FOR": json.dumps({"searches": SEARCHES, "pages": PAGES})},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in shots.iterdir()) == sorted(
        ["index.png", "narrow.png", "search.png", *(f"{each}.png" for each in PAGES)]
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
def test_two_hundred_events_are_found_by_typing(seen: dict[str, Any]) -> None:
    """By name, by a field's description in any case, by class of personal data and by source; at once."""
    assert (seen["rows"], seen["focused"]) == (TYPES + 4, "search")
    found = {words: len(rows) for words, rows in seen["searches"].items()}
    assert found.pop("WORD 7") > 0
    assert found == {
        "": TYPES + 4, "type_150": 1, "no such event": 0, "personal-number": TYPES // 10, "billing": 1, "<script>": 1,
    }  # fmt: skip
    assert seen["slowest_ms"] < 1_000


@pytest.mark.slow
def test_a_page_shows_what_a_consumer_needs(seen: dict[str, Any]) -> None:
    """Fields with classes of personal data, versions with their differences, and code to be copied."""
    page = seen["pages"]["shop.type_007.v1.html"]
    assert page["flags"] == ["personal-number"]
    assert page["red"]
    assert "v1.1" in page["text"]
    assert "added was added" in page["text"]
    assert '@consumer.on("shop.type_007", major=1)' in page["text"]
    assert "public_name" in seen["pages"]["inventory.instance.v1.html"]["flags"]
    assert not page["wider"]
    assert seen["narrow"]


@pytest.mark.slow
def test_texts_of_contracts_do_nothing(seen: dict[str, Any]) -> None:
    """Markup is shown as it is written; nothing pops up, is loaded from elsewhere, or is complained about."""
    page = seen["pages"]["shop.any.v1.html"]
    assert "<script>alert(1)</script>" in page["text"]
    assert (page["scripts"], page["images"]) == (0, 0)
    assert (seen["dialogs"], seen["requests"], seen["told"]) == ([], [], [])
