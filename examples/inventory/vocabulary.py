"""Words of a library catalogue, and rows made of them. Pure: a seeded generator in, values out."""

from __future__ import annotations

from random import Random
from typing import Any

_ADJECTIVES = (
    "Ancient", "Applied", "Bitter", "Brief", "Broken", "Collected", "Comparative", "Distant", "Early", "Forgotten",
    "General", "Golden", "Hidden", "Illustrated", "Inner", "Late", "Little", "Lost", "Modern", "Northern", "Practical",
    "Quiet", "Selected", "Silent", "Social", "Southern", "Structural", "Theoretical", "Unfinished", "Urban",
)  # fmt: skip
_SUBJECTS = (
    "Algebra", "Archives", "Botany", "Bridges", "Cartography", "Chemistry", "Cities", "Climate", "Economics", "Essays",
    "Folklore", "Forests", "Gardens", "Geology", "Grammar", "Harbours", "Histories", "Islands", "Journeys", "Kingdoms",
    "Landscapes", "Letters", "Libraries", "Linguistics", "Logic", "Medicine", "Migrations", "Music", "Mythology",
    "Navigation", "Optics", "Painting", "Philosophy", "Poems", "Rivers", "Rhetoric", "Statistics", "Theatre", "Winters",
)  # fmt: skip
_PLACES = (
    "Anatolia", "Bohemia", "Brittany", "Catalonia", "Friesland", "Galicia", "Iceland", "Lapland", "Lusatia", "Moravia",
    "Patagonia", "Provence", "Saxony", "Silesia", "Tuscany", "Ulster", "the Alps", "the Baltic", "the Levant", "Łódź",
    "Århus", "Île-de-France", "São Paulo", "Đà Nẵng", "東京",
)  # fmt: skip
_GIVEN = (
    "Ada", "Amara", "Björn", "Chiamaka", "Dáithí", "Elena", "Farid", "Grace", "Hana", "Ignacio", "Jún", "Katarzyna",
    "Lucía", "Mehmet", "Nadia", "Oluwaseun", "Priya", "Quentin", "Rosa", "Søren", "Thérèse", "Ulrike", "Vera", "Zoë",
)  # fmt: skip
_FAMILY = (
    "Abenov", "Ångström", "Brontë", "Castellanos", "Dvořák", "Eriksen", "Fontaine", "García", "Haddad", "Ivanova",
    "Jansen", "Kowalczyk", "Lindqvist", "Müller", "Nakamura", "O'Brien", "Papadopoulos", "Quispe", "Rossi", "Şahin",
    "Tanaka", "Ueda", "Villanueva", "Whitaker", "Yılmaz", "Zhang",
)  # fmt: skip
_LANGUAGES = ("eng", "ger", "fre", "spa", "ita", "pol", "dan", "por", "vie", "jpn", "lat", "ara")
_LOCATIONS = ("Main Library", "Annex", "Science Library", "Law Library", "Reading Room", "Storage", "Music Library")
_INSTANCE_TYPES = ("text", "still image", "notated music", "cartographic image", "computer dataset", "spoken word")
_MATERIALS = ("book", "dvd", "journal", "map", "microform", "score", "sound recording")
STATUSES = ("Available", "Checked out", "In transit", "On order", "Missing", "In process", "Awaiting pickup")
_REASONS = ("nightly import", "correction by cataloguing", "weeding", "circulation desk", "stock-taking")

# One title in this many lists so many contributors that PostgreSQL stores the column out of line (TOAST).
_LARGE_ONE_IN = 60


def instance_fields(rng: Random) -> dict[str, Any]:
    """The published columns of a new instance, without its id, hrid and time."""
    return {
        "title": title(rng),
        "source": rng.choice(("MARC", "FOLIO", "CONSORTIUM-MARC")),
        "instance_type": rng.choice(_INSTANCE_TYPES),
        "contributors": contributors(rng),
        "languages": rng.sample(_LANGUAGES, rng.choice((0, 1, 1, 1, 1, 2, 3))),
        "published_year": rng.choice((None, *[rng.randint(1850, 2026)] * 9)),
        "discovery_suppress": rng.random() < 0.05,
    }


def holdings_fields(rng: Random) -> dict[str, Any]:
    """The published columns of new holdings, without id, hrid, parent and time."""
    return {"permanent_location": location(rng), "call_number": call_number(rng)}


def item_fields(rng: Random) -> dict[str, Any]:
    """The columns of a new item, without id, hrid, parent, barcode and time."""
    return {
        "material_type": rng.choice(_MATERIALS),
        "status": rng.choice(STATUSES),
        "price": price(rng),
        "circulation_notes": note(rng) if rng.random() < 0.2 else None,
        "last_borrower": borrower(rng) if rng.random() < 0.3 else None,
    }


def title(rng: Random) -> str:
    """A title, now and then with quotes, ampersands or non-Latin letters."""
    subject = f"{rng.choice(_ADJECTIVES)} {rng.choice(_SUBJECTS)}"
    form = rng.random()
    if form < 0.3:
        return f"{subject} of {rng.choice(_PLACES)}"
    if form < 0.5:
        return f'{subject}: "{rng.choice(_SUBJECTS)}" & {rng.choice(_SUBJECTS).lower()}'
    if form < 0.7:
        return f"{rng.choice(_FAMILY)}'s {subject}, vol. {rng.randint(1, 12)}"
    return f"{subject} / {name(rng)}"


def name(rng: Random) -> str:
    """A person, family name first."""
    return f"{rng.choice(_FAMILY)}, {rng.choice(_GIVEN)}"


def contributors(rng: Random) -> list[dict[str, Any]]:
    """Usually one to three persons; a few titles have hundreds."""
    count = rng.randint(150, 250) if rng.randrange(_LARGE_ONE_IN) == 0 else rng.choice((0, 1, 1, 1, 2, 3))
    # The number keeps a long list from compressing so well that it stays in line.
    people = [f"{name(rng)} ({rng.getrandbits(64):016x})" if count > 3 else name(rng) for _ in range(count)]
    return [{"name": person, "primary": place == 0} for place, person in enumerate(people)]


def location(rng: Random) -> str:
    """A place of holdings."""
    return rng.choice(_LOCATIONS)


def call_number(rng: Random) -> str | None:
    """A Library of Congress style call number; some holdings have none."""
    if rng.random() < 0.1:
        return None
    return f"{rng.choice('ABCDEFGHJKLMNPQRSTUVZ')}{rng.randint(1, 9999)} .{rng.choice('ABCDEFG')}{rng.randint(10, 99)}"


def price(rng: Random) -> str | None:
    """A price as text, two digits behind the point; donated copies have none."""
    return None if rng.random() < 0.15 else f"{rng.randint(0, 25_000) / 100:.2f}"


def note(rng: Random) -> str:
    """A private note of the circulation desk."""
    return (
        f"{rng.choice(('spine repaired', 'handle with care', 'returned late', 'pages loose'))} #{rng.getrandbits(24)}"
    )


def borrower(rng: Random) -> str:
    """A private borrower."""
    return f"{name(rng)} <{rng.getrandbits(32):08x}@library.example>"


def context(rng: Random) -> dict[str, str]:
    """What an application attaches to a transaction: who did it, and why."""
    return {"actor": f"{rng.choice(_GIVEN).lower()}@library.example", "reason": rng.choice(_REASONS)}
