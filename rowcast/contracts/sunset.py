"""
The end of majors in CI: who still publishes what is past its last day, and what will end.

The last day of a major stands in its newest version. It may be put off, and never be brought forward: somebody has
made plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rowcast.contracts.checking import Finding
from rowcast.contracts.contract import Contract
from rowcast.deprecation import KEYWORD
from rowcast.topics import domain_topic

_POINTER = f"/{KEYWORD}/sunset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sunset:
    """A major that ends or has ended, and who has to do with it; *days_left* is below 0 when it is past."""

    file: str
    event: str
    sunset: str
    days_left: int
    producers: Sequence[str]
    consumers: Sequence[str]

    def __str__(self) -> str:
        when = "which is past" if self.days_left < 0 else f"in {self.days_left} days" if self.days_left else "today"
        who = [f"published by {', '.join(self.producers) or 'no source'}"]
        who += [f"read by {', '.join(self.consumers)}"] if self.consumers else []
        return f"{self.event} is deprecated: its last day is {self.sunset}, {when}; {'; '.join(who)}"

    @property
    def finding(self) -> Finding | None:
        """That it is published still although it is past; None otherwise."""
        if self.days_left >= 0 or not self.producers:
            return None
        return Finding(self.file, _POINTER, "SUNSET_PASSED", str(self))


def sunsets(
    contracts: Iterable[Contract],
    producers: Mapping[str, Sequence[str]],
    consumers: Mapping[str, Sequence[str]],
    today: date,
) -> list[Sunset]:
    """
    The deprecated majors of *contracts*; sources that publish and apps that read are known by topic.

    Those that are past and that nobody publishes or reads any more are not told of.
    """
    found = []
    for contract in newest_of_each_major(contracts):
        if contract.deprecation is None:
            continue
        topic = domain_topic(contract.domain, contract.aggregate, contract.major)
        sunset = Sunset(
            file=str(contract.path),
            event=topic,
            sunset=contract.deprecation.sunset,
            days_left=(contract.deprecation.last_day - today).days,
            producers=producers.get(topic, ()),
            consumers=consumers.get(topic, ()),
        )
        if sunset.days_left >= 0 or sunset.producers or sunset.consumers:
            found.append(sunset)
    return found


def newest_of_each_major(contracts: Iterable[Contract]) -> list[Contract]:
    """The newest version of each major: what it says of its end counts."""
    newest: dict[tuple[Path, int], Contract] = {}
    for contract in sorted(contracts, key=lambda each: (each.path.parent, each.major, each.minor)):
        newest[contract.path.parent, contract.major] = contract
    return list(newest.values())


def shortened(published: Iterable[Contract], current: Iterable[Contract]) -> Iterator[Finding]:
    """The majors of one aggregate type that end earlier than was published."""
    before = {each.major: each.deprecation for each in newest_of_each_major(published)}
    for contract in newest_of_each_major(current):
        told, now = before.get(contract.major), contract.deprecation
        if told is not None and now is not None and now.sunset < told.sunset:
            message = f"the last day of major {contract.major} was brought forward from {told.sunset} to {now.sunset}"
            yield Finding(str(contract.path), _POINTER, "SUNSET_SHORTENED", message)
