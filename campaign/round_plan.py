"""What a round is to be; all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from campaign.applier import BATCH, SINGLE
from campaign.control_loss import PlannedLoss, plan_loss
from campaign.declaration import random_types
from campaign.faults import CONSUMER, WORKER, PlannedFault, needs_standby, plan_faults, theme_of
from campaign.random_schema import Type
from campaign.rereading import PlannedReread, plan_rereads

ROLES = (WORKER, CONSUMER)
_SCHEMAS = 2
# So low that transactions of the load are staged, moved parents corrected in chunks, and what is read again applied so.
SMALL_LIMITS = "transaction_changes=40,chunk_aggregates=25,descendants=20"
_SMALL = 0.2
# Of single events and of batches: a few of each in a round.
_FAILING = {SINGLE: 0.002, BATCH: 0.05}


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """
    Everything of a round that follows from its *seed*.

    *limits* are those of the worker, empty for the usual ones. *failing* is the share of the calls of the consumer's
    handlers that fail. *loss* is what becomes of the control database.
    """

    seed: int
    theme: str
    types: Sequence[Type]
    constrained: frozenset[str]
    exactly_once: bool
    standbys: Mapping[str, bool]
    applier: str
    faults: Sequence[PlannedFault]
    rereads: Sequence[PlannedReread]
    limits: str
    failing: float
    loss: PlannedLoss | None


def plan_round(seed: int, *, faults: bool = True) -> RoundPlan:
    """The plan of *seed*; without *faults*, the same without them."""
    rng = random.Random(seed)
    types = random_types(rng, _SCHEMAS)
    children = [each.name for each in types if each.link]
    constrained = frozenset(name for name in children if rng.random() < 0.3)
    standby, applier = rng.random() < 0.2, rng.choice([SINGLE, BATCH])
    theme = theme_of(seed)
    planned = plan_faults(rng, theme)
    standbys = {role: standby or any(each.target == role and needs_standby(each) for each in planned) for role in ROLES}
    exactly_once = theme.exactly_once
    rereads = plan_rereads(rng, [each.name for each in types if each.is_aggregate], wanted=theme.reread)
    limits = SMALL_LIMITS if theme.small or rng.random() < _SMALL else ""
    if theme.losses:
        # What somebody had asked for, or of a transaction went out in part, nobody knows any more after a rebuild.
        rereads, limits = (), ""
    return RoundPlan(
        seed=seed,
        theme=theme.name,
        types=types,
        constrained=constrained,
        exactly_once=exactly_once,
        standbys=standbys,
        applier=applier,
        faults=planned if faults else (),
        rereads=rereads,
        limits=limits,
        failing=_FAILING[applier] if theme.failing or rng.random() < 0.2 else 0.0,
        loss=plan_loss(random.Random(f"{seed} control"), theme.losses) if theme.losses and faults else None,
    )
