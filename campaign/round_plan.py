"""What a round is to be; all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from campaign.applier import BATCH, SINGLE
from campaign.declaration import random_types
from campaign.faults import CONSUMER, WORKER, PlannedFault, outlives_lease, plan_faults, theme_of
from campaign.random_schema import Type

ROLES = (WORKER, CONSUMER)
_SCHEMAS = 2


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """Everything of a round that follows from its *seed*."""

    seed: int
    theme: str
    types: Sequence[Type]
    constrained: frozenset[str]
    exactly_once: bool
    standbys: Mapping[str, bool]
    applier: str
    faults: Sequence[PlannedFault]


def plan_round(seed: int, *, faults: bool = True) -> RoundPlan:
    """The plan of *seed*; without *faults*, the same without them."""
    rng = random.Random(seed)
    types = random_types(rng, _SCHEMAS)
    children = [each.name for each in types if each.parent is not None]
    constrained = frozenset(name for name in children if rng.random() < 0.3)
    standby, applier = rng.random() < 0.2, rng.choice([SINGLE, BATCH])
    theme = theme_of(seed)
    planned = plan_faults(rng, theme)
    standbys = {
        role: standby or any(each.target == role and outlives_lease(each) for each in planned) for role in ROLES
    }
    exactly_once = theme.exactly_once
    return RoundPlan(
        seed=seed,
        theme=theme.name,
        types=types,
        constrained=constrained,
        exactly_once=exactly_once,
        standbys=standbys,
        applier=applier,
        faults=planned if faults else (),
    )
