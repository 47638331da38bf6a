"""
Former values of an entity as today's rules have them.

A source that published a value and hides it now must not tell it once more, as what it was before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rowcast.contracts.personal_data import MASK, Digest, is_needed, treated
from rowcast.sources.definition import AggregateDefinition
from rowcast.sources.shielded_column import embedded_treatment, root_rules

Former = Callable[[Mapping[str, Any]], dict[str, Any]]
_HASHED = re.compile(r"[0-9a-f]{64}")


def former_reader(aggregate: AggregateDefinition, digest: Digest) -> Former | None:
    """What turns the entity that was published last into one that may be told; None when all of it may be."""
    rules = root_rules(aggregate)
    every = {name: rules.treatment(name) for name in aggregate.fields if name not in aggregate.dropped}
    every.update((each.name, embedded_treatment(rules, each)) for each in aggregate.embedded)
    treatments = {name: treatment for name, treatment in every.items() if is_needed(treatment)}
    if not treatments and not aggregate.dropped:
        return None

    def hashed_once(text: str) -> str:
        return text if text == MASK or _HASHED.fullmatch(text) else digest(text)

    def told(entity: Mapping[str, Any]) -> dict[str, Any]:
        former = {}
        for name, value in entity.items():
            if name in treatments:
                former[name] = treated([treatments[name]], value, hashed_once)
            elif name not in aggregate.dropped:
                former[name] = value
            elif name in aggregate.fields:
                former[name] = None
        return former

    return told
