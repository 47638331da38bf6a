"""
The catalogue: static pages about all events, for people who look for one and want to consume it.

Works from a folder or any web server, loads nothing from elsewhere, and lets no text of a contract become markup: every
text is escaped, and the pages forbid all scripts but their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from rowcast.contracts.compatibility.rules import POLICY
from rowcast.contracts.consumer_part import ConsumerPart
from rowcast.contracts.contract import Contract
from rowcast.contracts.field_row import FieldRow, field_rows
from rowcast.contracts.markup import Html, joined, tag
from rowcast.deprecation import Deprecation
from rowcast.event import EventKind, event_type
from rowcast.topics import domain_topic

MARK = "rowcast schemas catalogue"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top; padding: .4rem .6rem;
border-bottom: 1px solid #ddd; overflow-wrap: anywhere } pre { background: #f5f5f5; padding: 1rem; overflow-x: auto }
code, pre { font-family: ui-monospace, monospace; font-size: .9em } input { font: inherit; padding: .4rem; width: 100%;
box-sizing: border-box } .pii { background: #8a1c1c; color: #fff; padding: 0 .4rem; border-radius: .3rem }
.old { text-decoration: line-through }
"""
_SCRIPT = """
const box = document.getElementById("search");
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/);
  for (const row of document.querySelectorAll("[data-words]"))
    row.hidden = !words.every((word) => row.dataset.words.includes(word));
});
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One event: all *versions* of one major, the newest last, of an aggregate type, and who has to do with it."""

    versions: Sequence[Contract]
    producers: Sequence[str] = ()
    consumers: Sequence[ConsumerPart] = ()
    fields: Sequence[FieldRow] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(field_rows(self.contract)))

    @property
    def contract(self) -> Contract:
        """The newest version."""
        return self.versions[-1]

    @property
    def topic(self) -> str:
        """Its topic, and the name of its page."""
        return domain_topic(self.contract.domain, self.contract.aggregate, self.contract.major)

    @property
    def pii(self) -> list[str]:
        """The classes of personal data that it holds."""
        stated = (row for each in self.contract.stated() for row in field_rows(each))
        return sorted({each.pii for each in (*self.fields, *stated)} - {"", "none"})


def catalogue_entries(
    contracts: Iterable[Contract], producers: Mapping[str, Sequence[str]], parts: Iterable[ConsumerPart]
) -> list[CatalogueEntry]:
    """The entries of *contracts*, with sources (*producers*) by topic and consumers' *parts*."""
    majors: dict[tuple[str, str, int], list[Contract]] = {}
    for contract in sorted(contracts, key=lambda each: (each.domain, each.aggregate, each.major, each.minor)):
        majors.setdefault((contract.domain, contract.aggregate, contract.major), []).append(contract)
    listed = list(parts)
    return [
        CatalogueEntry(
            versions=versions,
            producers=producers.get(domain_topic(*key), ()),
            consumers=[part for part in listed if (part.domain, part.aggregate, part.major) == key],
        )
        for key, versions in majors.items()
    ]


def write_catalogue(out: Path, entries: Sequence[CatalogueEntry]) -> list[Path]:
    """Write the pages into *out*, remove those of events that are gone, and return what was written."""
    pages = {"index.html": _index(entries)} | {f"{entry.topic}.html": _page(entry) for entry in entries}
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.html"):
        if path.name not in pages and MARK.encode() in path.read_bytes()[:2000]:
            path.unlink()
    for name, page in pages.items():
        (out / name).write_bytes(page.encode("utf-8", "replace"))
    return [out / name for name in pages]


def _document(title: str, *body: str | Iterable[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (_STYLE, _SCRIPT)]
    policy = "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'".format(*digests)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="generator", content=MARK),
        tag("meta", name="viewport", content="width=device-width"),
        tag("title", title),
        tag("style", Html(_STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def _index(entries: Sequence[CatalogueEntry]) -> str:
    rows = [
        tag(
            "tr",
            tag("td", tag("a", entry.topic, href=f"{entry.topic}.html"), _ending(entry)),
            tag("td", tag("strong", _title(entry)), tag("br"), str(entry.contract.entity.get("description", ""))),
            tag("td", _flags(entry.pii)),
            tag("td", ", ".join(entry.producers)),
            tag("td", ", ".join(part.app for part in entry.consumers)),
            data_words=_words(entry),
        )
        for entry in entries
    ]
    search = tag("input", id="search", type="search", placeholder="event, field, description, team …", autofocus="")
    table = tag("table", _heading("event", "about", "personal data", "producers", "consumers"), tag("tbody", rows))
    return _document("Events", tag("h1", "Events"), search, table, tag("script", Html(_SCRIPT)))


def _ending(entry: CatalogueEntry) -> Html | str:
    end = entry.contract.deprecation
    return joined(tag("br"), f"deprecated, until {end.sunset}") if end else ""


def _words(entry: CatalogueEntry) -> str:
    words = [entry.topic, _title(entry), str(entry.contract.entity.get("description", "")), *entry.pii]
    words += [f"{each.path} {each.description}" for each in entry.fields]
    for stated in entry.contract.stated():
        words += [stated.event, str(stated.entity.get("description", "")), *(each.path for each in field_rows(stated))]
    words += ["deprecated"] if entry.contract.deprecation else []
    return " ".join([*words, *entry.producers, *(part.app for part in entry.consumers)]).lower()


def _page(entry: CatalogueEntry) -> str:
    contract = entry.contract
    stated = contract.stated()
    names = [*EventKind, *(each.event for each in stated)]
    kinds = [event_type(contract.domain, contract.aggregate, name, contract.major) for name in names]
    facts = {
        "topic": tag("code", entry.topic),
        "types": joined(
            tag("code", kind) if at == 0 else joined(", ", tag("code", kind)) for at, kind in enumerate(kinds)
        ),
        "schema": tag("code", contract.dataschema),
        "above": ", ".join(contract.ancestors) or "nothing",
        "producers": ", ".join(entry.producers) or "none that is known",
        **({"deprecated": _end(contract.deprecation)} if contract.deprecation else {}),
    }
    return _document(
        entry.topic,
        tag("p", tag("a", "all events", href="index.html")),
        tag("h1", _title(entry)),
        tag("p", str(contract.entity.get("description", ""))),
        tag("table", [tag("tr", tag("th", name), tag("td", text)) for name, text in facts.items()]),
        tag("h2", f"Fields of {contract.version}"),
        _fields(entry.fields),
        [_stated(each) for each in stated],
        tag("h2", "Consumers"),
        _consumers(entry),
        tag("h2", "Versions"),
        tag("ul", _versions(entry)),
        tag("h2", "Consume it"),
        tag("pre", _code(contract)),
        tag("h2", "Examples"),
        [
            joined(tag("h3", path.stem.replace("_", " ")), tag("pre", _pretty(path)))
            for path in contract.examples("accepted")
        ],
    )


def _stated(contract: Contract) -> Html:
    return joined(
        tag("h2", f"Stated event {contract.event}"),
        tag("p", tag("strong", str(contract.entity.get("title", contract.event)))),
        tag("p", str(contract.entity.get("description", ""))),
        tag("p", f"Fields of its data, {contract.version}:"),
        _fields(tuple(field_rows(contract))),
    )


def _end(deprecation: Deprecation) -> str:
    since = f"since {deprecation.since}; " if deprecation.since else ""
    return f"{since}its last day is {deprecation.sunset}" + (
        f"; see {deprecation.migration}" if deprecation.migration else ""
    )


def _fields(fields: Sequence[FieldRow]) -> Html:
    rows = [
        tag(
            "tr",
            tag("td", tag("code", each.path, **({"class_": "old"} if each.deprecated else {}))),
            tag("td", each.type),
            tag("td", "always" if each.required else "may be absent"),
            tag("td", "Deprecated. " if each.deprecated else "", each.description),
            tag("td", _flags([each.pii] if each.pii not in ("", "none") else [])),
            tag("td", [joined(tag("code", example), " ") for example in each.examples]),
        )
        for each in fields
    ]
    return tag("table", _heading("field", "type", "there", "about", "personal data", "examples"), tag("tbody", rows))


def _consumers(entry: CatalogueEntry) -> Html:
    if not entry.consumers:
        return tag("p", "None that is known.")
    rows = [
        tag(
            "tr",
            tag("td", part.app),
            tag("td", str(part.entity.get("description", ""))),
            tag("td", [joined(tag("code", name), " ") for name in part.fields]),
        )
        for part in entry.consumers
    ]
    return tag("table", _heading("app", "what for", "fields"), tag("tbody", rows))


def _versions(entry: CatalogueEntry) -> list[Html]:
    changes = [tag("li", tag("strong", entry.versions[0].version), ": the first of this major version")]
    for older, newer in pairwise(entry.versions):
        changes.append(tag("li", tag("strong", newer.version), ": ", "; ".join(_differences(older, newer))))
    return changes[::-1]


def _differences(older: Contract, newer: Contract) -> list[str]:
    from rowcast.contracts.compatibility.verdict import compare

    before, after = ({each.path: each for each in field_rows(contract)} for contract in (older, newer))
    told = [f"{path} was added" for path in after if path not in before]
    told += [f"{path} was removed" for path in before if path not in after]
    for path in after.keys() & before.keys():
        if after[path].type != before[path].type:
            told.append(f"{path} was {before[path].type}, is {after[path].type}")
    findings = compare(older.value_schema(), newer.value_schema()).findings
    told += dict.fromkeys(each.message for each in findings if each.direction != POLICY)
    return sorted(told) or ["better words"]


def _code(contract: Contract) -> str:
    name = f"{contract.domain}.{contract.aggregate}"
    return (
        "from rowcast.consumer import Consumer\n\n"
        'consumer = Consumer("my_app", database="postgresql://…", brokers="…")\n\n\n'
        f'@consumer.on("{name}", major={contract.major})\n'
        f"def {contract.aggregate}_changed(event, connection):\n"
        "    if event.after is None:\n"
        "        return  # it was deleted; event.before is what it was last\n"
        f"    print(event.identity.id_text, event.version, event.after)\n\n\n"
        "consumer.run()\n"
    )


def _pretty(path: Path) -> str:
    return json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2, ensure_ascii=False)


def _heading(*names: str) -> Html:
    return tag("thead", tag("tr", [tag("th", name) for name in names]))


def _flags(classes: Iterable[str]) -> list[Html]:
    return [joined(tag("span", each, class_="pii"), " ") for each in classes]


def _title(entry: CatalogueEntry) -> str:
    return str(entry.contract.entity.get("title", entry.topic))
