"""The catalogue: what is on its pages, and that no text of a contract can become more than text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_codegen import contract_with
from test_consumer_parts import write_part
from test_schema_changes import ENTITY, Command, changed, project, schemas, write_version

from rowcast.cli.main import main
from rowcast.contracts.catalogue import catalogue_entries, write_catalogue
from rowcast.contracts.field_row import field_rows

__all__ = ["project", "schemas"]

REPOSITORY = Path(__file__).resolve().parents[2]
ATTACK = """"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;\u202e]]>--></style></pre>\x00"""


class Page(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.inline: dict[str, str] = {}
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("script", "style") and self.tags[-1] not in self.inline:
            self.inline[self.tags[-1]] = data
        else:
            self.text += data

    def values(self, name: str) -> list[str]:
        """The values of all attributes of that name."""
        return [value or "" for each, value in self.attributes if each == name]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of this repository."""
    out = tmp_path_factory.mktemp("site")
    assert main(["--project", str(REPOSITORY), "schemas", "catalogue", "--out", str(out)]) == 0
    return out


def test_the_pages_need_nothing_from_elsewhere(site: Path) -> None:
    """Every link leads to a page of the folder; nothing is loaded, and other scripts than the search are forbidden."""
    pages = [Page(path) for path in sorted(site.glob("*.html"))]

    assert len(pages) == 4
    assert {link for page in pages for link in page.values("href")} <= {path.name for path in site.iterdir()}
    assert not [page.values("src") for page in pages if page.values("src")]
    assert {tag for page in pages for tag in page.tags}.isdisjoint({"link", "img", "iframe", "object", "form"})
    for page in pages:
        (policy,) = [value for value in page.values("content") if "default-src" in value]
        digests = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in page.inline.values()}
        assert policy.startswith("default-src 'none'")
        assert digests <= set(re.findall(r"sha256-([^']+)'", policy))


def test_a_page_tells_all_about_an_event(site: Path) -> None:
    """Fields, classes of personal data, examples, producers, consumers and code that registers a handler."""
    page = Page(site / "inventory.item.v1.html")
    instance = Page(site / "inventory.instance.v1.html")

    for word in ("holdings_id", "text (uuid)", "Checked out", "v1.0: the first", "inventory", "orders", "po"):
        assert word in page.text
    assert '@consumer.on("inventory.item", major=1)' in page.text
    assert "contributors[].name" in instance.text
    assert "public_name" in instance.text


def test_the_index_can_be_searched(site: Path) -> None:
    """A row's words hold the names and descriptions of its fields, its consumers and its source, in small letters."""
    page = Page(site / "index.html")
    words = dict(zip(page.values("href"), page.values("data-words"), strict=True))

    assert "contributors[].name" in words["inventory.instance.v1.html"]
    assert "orders" in words["inventory.item.v1.html"]
    assert words["inventory.item.v1.html"] == words["inventory.item.v1.html"].lower()
    assert "data-words" in page.inline["script"]
    assert page.values("id") == ["search"]


def hostile() -> dict[str, Any]:
    """A contract's properties with the attack wherever a text can stand."""
    field = {"description": ATTACK, "x-pii": ATTACK, "examples": [ATTACK], "deprecated": True}
    return {
        ATTACK: {"type": "string", "pattern": ATTACK, **field},
        "listed": {"enum": [ATTACK, None], **field},
        "fixed": {"const": ATTACK, **field},
        "inner": {"type": "array", "items": {"$ref": "#/$defs/x"}, **field},
        "map": {"type": "object", "additionalProperties": {"$ref": "#/$defs/x"}, **field},
        "either": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/x"}], **field},
    }


def test_texts_stay_texts(tmp_path: Path) -> None:
    """Markup in names, descriptions, examples, patterns, sources and apps is shown, and does nothing."""
    definitions = {"x": {"type": "object", "properties": {"next": {"$ref": "#/$defs/x"}, ATTACK: {"type": "string"}}}}
    contract = contract_with(hostile(), definitions)
    entity = {**contract.entity, "title": ATTACK, "description": ATTACK}
    entry = catalogue_entries([type(contract)(**{**_parts(contract), "entity": entity})], {"shop.any.v1": [ATTACK]}, [])
    write_catalogue(tmp_path, entry)
    pages = [Page(tmp_path / name) for name in ("index.html", "shop.any.v1.html")]

    assert [page.tags.count("script") for page in pages] == [1, 0]
    assert not {name for page in pages for name, _value in page.attributes if name.startswith("on")}
    assert all("<script>alert(1)</script><img src=x onerror='alert(2)'>" in page.text for page in pages)
    assert "img" not in {tag for page in pages for tag in page.tags}


def _parts(contract: Any) -> dict[str, Any]:
    return {name: getattr(contract, name) for name in ("path", "domain", "aggregate", "major", "minor", "entity")}


def test_what_contains_itself_is_told_once() -> None:
    """A recursive definition gives rows that end."""
    definitions = {"x": {"type": "object", "properties": {"next": {"$ref": "#/$defs/x"}}}}
    paths = [row.path for row in field_rows(contract_with({"first": {"$ref": "#/$defs/x"}}, definitions))]

    assert paths == ["first", "first.next"]


def test_versions_tell_their_differences(project: Path, schemas: Command, tmp_path: Path) -> None:
    """What was added, removed or changed, and what that breaks; pages of events that are gone go."""
    note = {"type": "string", "description": "Note.", "examples": ["a"], "x-pii": "free-text"}
    write_version(project, "1.1", changed("properties/note", note))
    write_version(project, "1.2", changed("properties/status/enum", ["placed", "paid", "refunded"]))
    write_version(project, "2.0", ENTITY)
    write_part(project, "billing", {"id": {"type": "string"}})
    assert schemas("catalogue", "--out", str(tmp_path / "site"))[0] == 0
    page = Page(tmp_path / "site/shop.order.v1.html")

    assert "v1.1: note was added" in page.text
    assert "note was removed" in page.text
    assert "a value was added to a closed list" in page.text
    assert "billing" in page.text
    assert (tmp_path / "site/shop.order.v2.html").exists()
    for path in (project / "schemas/shop/order").glob("v2.0*"):
        path.unlink()
    assert schemas("catalogue", "--out", str(tmp_path / "site"))[0] == 0
    assert not (tmp_path / "site/shop.order.v2.html").exists()
    write_version(project, "1.3", changed("properties/id/if", {}))
    assert schemas("catalogue", "--out", str(tmp_path / "site"))[0] == 2
