"""
Records of a library's catalogue as JSON documents: real ones where the data is there, else some of the same shape.

The folder of the real ones is named by ROWCAST_TEST_DATA; it holds `folio-sample/` with a file for each record.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from pathlib import Path
from typing import Any

Records = dict[str, list[dict[str, Any]]]

_FOLDERS = {
    "instance": ("instances", "bound-with/instances"),
    "holdings": ("holdingsrecords", "bound-with/holdingsrecords"),
    "item": ("items", "bound-with/items"),
    "part": ("bound-with/bound-with-parts",),
}


def catalogue_records() -> Records:
    """Instances, holdings, items, and parts that bind an item with the holdings of several instances."""
    data = os.environ.get("ROWCAST_TEST_DATA")
    if not data:
        return _made()
    folder = Path(data) / "folio-sample"
    assert folder.is_dir(), f"ROWCAST_TEST_DATA names {data}, which has no folio-sample"
    return {
        name: [json.loads(path.read_text()) for place in places for path in sorted((folder / place).glob("*.json"))]
        for name, places in _FOLDERS.items()
    }


def _made() -> Records:
    rng = random.Random(7)
    instances = [_instance(rng, number) for number in range(30)]
    holdings = [_holdings(rng, number, rng.choice(instances)["id"]) for number in range(20)]
    items = [_item(rng, number, rng.choice(holdings)["id"]) for number in range(25)]
    parts = [
        {"id": _id(rng), "itemId": rng.choice(items)["id"], "holdingsRecordId": rng.choice(holdings)["id"]}
        for _ in range(10)
    ]
    return {"instance": instances, "holdings": holdings, "item": items, "part": parts}


def _id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _instance(rng: random.Random, number: int) -> dict[str, Any]:
    # Some are long enough for PostgreSQL to keep them apart from their row (TOAST).
    identifiers = [{"identifierTypeId": _id(rng), "value": _id(rng)} for _ in range(rng.choice([0, 1, 60]))]
    record = {
        "id": _id(rng),
        "hrid": f"inst{number:012}",
        "source": rng.choice(["MARC", "FOLIO"]),
        "title": f"Título №{number} – 'Lærebok' 本",
        "identifiers": identifiers,
        "contributors": [{"name": "Pratchett, Terry", "primary": True}],
        "instanceTypeId": _id(rng),
        "languages": ["eng"],
        "discoverySuppress": rng.choice([None, True, False]),
    }
    return {
        name: value for name, value in record.items() if name not in rng.choice([(), ("languages", "contributors")])
    }


def _holdings(rng: random.Random, number: int, instance: str) -> dict[str, Any]:
    record = {"id": _id(rng), "hrid": f"hold{number:012}", "instanceId": instance, "permanentLocationId": _id(rng)}
    return {**record, "callNumber": "K1 .M44"} if rng.random() < 0.8 else record


def _item(rng: random.Random, number: int, holdings: str) -> dict[str, Any]:
    record = {
        "id": _id(rng),
        "hrid": f"item{number:012}",
        "status": {"name": rng.choice(["Available", "Checked out"])},
        "holdingsRecordId": holdings,
        "barcode": str(rng.getrandbits(40)),
        "materialTypeId": _id(rng),
        "discoverySuppress": None,
        "notes": [{"note": "signed", "staffOnly": False}],
    }
    return record if rng.random() < 0.7 else {name: record[name] for name in record if name != "barcode"}
