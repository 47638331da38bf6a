"""
Values that did not come from rows, as the source's rules for personal data have them.

A source that published a value and hides it now must not tell it once more, as what it was before. And what a function
makes for an older major may be personal there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rowcast.contracts.declared_members import pruner
from rowcast.contracts.personal_data import MASK, Digest, is_needed, treated
from rowcast.sources.definition import AggregateDefinition, FormerMajor
from rowcast.sources.shielded_column import embedded_treatment, older_dropped, older_treatments, root_rules

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
    once = _once(digest)

    def told(entity: Mapping[str, Any]) -> dict[str, Any]:
        former = {}
        for name, value in entity.items():
            if name in treatments:
                former[name] = treated([treatments[name]], value, once)
            elif name not in aggregate.dropped:
                former[name] = value
            elif name in aggregate.fields:
                former[name] = None
        return former

    return told


def older_reader(aggregate: AggregateDefinition, older: FormerMajor, digest: Digest) -> Former | None:
    """
    What makes of the entity of an older major one that may be told; None when all of it may be.

    Its own contract decides: what that classifies is masked, hashed or dropped, unless it is so already, and members of
    objects that it does not name are taken off. What is dropped is left out, or null where the contract demands it.
    """
    every = older_treatments(aggregate, older)
    treatments = {name: treatment for name, treatment in every.items() if is_needed(treatment)}
    pruners = {name: prune for name, treatment in every.items() if (prune := pruner(treatment)) is not None}
    if not treatments and not pruners:
        return None
    once = _once(digest)
    dropped, demanded = older_dropped(aggregate, older)

    def told(entity: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in entity.items() if name not in dropped}
        for name in kept.keys() & treatments.keys():
            kept[name] = treated([treatments[name]], kept[name], once)
        for name in kept.keys() & pruners.keys():
            kept[name] = pruners[name](kept[name])
        return {**kept, **dict.fromkeys(demanded)}

    return told


def _once(digest: Digest) -> Digest:
    return lambda text: text if text == MASK or _HASHED.fullmatch(text) else digest(text)
