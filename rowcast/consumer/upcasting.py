"""
Upcasters: events of an older major as a handler of a newer one wants them, one step from major to major. No I/O.

An upcaster turns an entity. What an event says of the state before, which is only what changed, is turned by way of
the whole former entity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from rowcast.errors import ConfigurationError, MappingError
from rowcast.event import DomainEvent

Upcaster = Callable[[dict[str, Any]], Mapping[str, Any]]
_ANCESTORS = "ancestors"


@dataclass(frozen=True, slots=True)
class Upcasting:
    """The *steps* that lead from the major that is read to *major*, that of the handler."""

    aggregate: str
    major: int
    steps: tuple[tuple[int, Upcaster], ...]

    def __call__(self, event: DomainEvent) -> DomainEvent:
        """
        *event* in the handler's major; `dataschema` goes on to name what was sent.

        Raises:
            MappingError: an upcaster failed, or gave no object.

        """
        after = None if event.after is None else self._entity(event.after)
        return replace(event, major=self.major, after=after, before=self._before(event, after))

    def _before(self, event: DomainEvent, after: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if event.before is None:
            return None
        former = {name: value for name, value in event.before.items() if name != _ANCESTORS}
        if event.after is None or after is None:
            return self._entity(former)
        was = self._entity({**event.after, **former})
        before = {name: value for name, value in was.items() if name not in after or _differ(value, after[name])}
        if _ANCESTORS in event.before:
            before[_ANCESTORS] = event.before[_ANCESTORS]
        return before

    def _entity(self, entity: Mapping[str, Any]) -> dict[str, Any]:
        turned: Any = entity
        for step, upcaster in self.steps:
            try:
                # A copy of its own: an upcaster may change what it is given.
                turned = upcaster(orjson.loads(orjson.dumps(turned)))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise MappingError(f"upcaster of {self.aggregate} from major {step}: {reason}") from error
            if not isinstance(turned, dict):
                raise MappingError(f"upcaster of {self.aggregate} from major {step} returned no dict")
        return dict(turned)


def _differ(one: Any, other: Any) -> bool:
    # Python takes 1, 1.0 and True for equal; as JSON they differ.
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) != orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def chain(aggregate: str, majors: tuple[int, int], upcasters: Mapping[int, Upcaster]) -> Upcasting | None:
    """
    The way from the major that is read to that of the handler, *majors*; None where they are the same.

    Raises:
        ConfigurationError: a step is missing, or leads beyond the handler's major.

    """
    read, wanted = majors
    for beyond in sorted(step for step in upcasters if step >= wanted):
        raise _fault(aggregate, f"the upcaster from major {beyond} leads beyond major {wanted}, that of the handler")
    for step in range(min([read, *upcasters]), wanted):
        if step not in upcasters:
            message = f"no upcaster leads from major {step} to {step + 1}; the handler is for {wanted}, {read} is read"
            raise _fault(aggregate, message, f'add @consumer.upcaster("{aggregate}", major={step})')
    if read == wanted:
        return None
    return Upcasting(aggregate, wanted, tuple((step, upcasters[step]) for step in range(read, wanted)))


def _fault(aggregate: str, message: str, fix: str = "remove it, or raise the handler's major") -> ConfigurationError:
    return ConfigurationError(message, where=aggregate, fix=fix)
