"""``rowcast events tail|show``: what stands on the domain topics, for people and for scripts."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rowcast.cli.verbs import Verbs
from rowcast.errors import ConfigurationError, MalformedEventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rowcast.consumer.partitions import Delivery
    from rowcast.errors import BrokerUnavailableError
    from rowcast.event_log import EventLog

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_NAME = "topic of events: <domain>.<aggregate>, of its newest major version, or <domain>.<aggregate>.v<major>"


def register(verbs: Verbs) -> None:
    """Add the noun `events` and its verbs."""
    noun = verbs.noun("events", "look at published events", "tail inventory.item", "show inventory.item 42")
    tail = noun.verb(
        "tail",
        _tail,
        "print events as they are published",
        "inventory.item",
        "inventory.item --last 10 --json",
        "inventory.item --id 42 --since 2h --for 60",
        description="From now on until Ctrl-C; with --since from there. With --last or --until it ends by itself."
        " Prints transactions that were committed, each aggregate's events in order. Times are those at which the"
        " broker got an event. Exit code 0: ended as asked; 1: records were met that are no events; 2: no such topic or"
        " aggregate, or Kafka does not answer.",
    )
    tail.add_argument("topic", metavar="NAME", help=_NAME)
    tail.add_argument("--id", metavar="ID", help="only of this aggregate: its id text, as the record key has it")
    tail.add_argument("--last", type=_count, metavar="N", help="the newest N, then end")
    tail.add_argument("--since", type=_time, metavar="TIME", help="from then on: 90s, 15m, 2h, 7d ago, or RFC 3339")
    tail.add_argument("--until", type=_time, metavar="TIME", help="up to then, as --since; then end")
    tail.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="end after so many seconds")
    show = noun.verb(
        "show",
        _show,
        "one event by its id, or all that is left of an aggregate's history",
        "inventory.item 42",
        "inventory.item item:42:3 --json",
        description="Older versions than the window may be gone: the latest is always there. Exit code 0: found; 1:"
        " records were met that are no events; 2: no such topic, aggregate or event, or Kafka does not answer.",
    )
    show.add_argument("topic", metavar="NAME", help=_NAME)
    show.add_argument("id", metavar="ID", help="id text of the aggregate, as the record key has it, or an event's id")
    for parser in (tail, show):
        parser.add_argument(
            "--json", action="store_true", help="print one JSON document for each event, each on a line of its own"
        )


def _tail(arguments: argparse.Namespace) -> int:
    from rowcast.event_log import EventLog, partition_of
    from rowcast.settings import load_settings

    if arguments.seconds is not None and (arguments.last is not None or arguments.until is not None):
        raise ConfigurationError("ends by itself", where="--for", fix="leave it out with --last and --until")
    log = EventLog(load_settings(arguments.project).kafka())
    partitions = log.partitions(arguments.topic)
    wanted_partitions = [partition_of(arguments.id, partitions)] if arguments.id else partitions

    def wanted(delivery: Delivery) -> bool:
        return arguments.id is None or _id_text(delivery) == arguments.id

    span = log.span(wanted_partitions, arguments.since, arguments.until)
    if arguments.last is not None:
        found = log.last(span, arguments.last, wanted)
        if not found and arguments.id is not None and (arguments.since, arguments.until) == (None, None):
            raise _unknown(arguments.topic, arguments.id)
        return _print(found, arguments)
    if arguments.until is not None:
        return _print(log.read(span, wanted), arguments)
    assert span.ends is not None, "span has both"
    starts = span.ends if arguments.since is None else span.starts
    try:
        return _print(log.follow(starts, wanted, arguments.seconds, _waiting), arguments)
    except KeyboardInterrupt:  # the way to end it
        return 0


def _show(arguments: argparse.Namespace) -> int:
    from rowcast.event_log import EventLog
    from rowcast.settings import load_settings

    log = EventLog(load_settings(arguments.project).kafka())
    # An id text has no colon, an event's id has two: <aggregate>:<id text>:<version>.
    _aggregate, colon, rest = arguments.id.partition(":")
    id_text, _colon, _version_text = rest.rpartition(":") if colon else (arguments.id, "", "")
    found = _history(log, arguments.topic, id_text)
    if not found:
        raise _unknown(arguments.topic, id_text)
    if colon:
        known = [_version(each) for each in found]
        found = [each for each in found if _event_id(each) == arguments.id]
        if not found:
            there = f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"
            raise ConfigurationError(
                f"there is no event {arguments.id!r}", where=arguments.topic, fix=f"versions that are there: {there}"
            )
    return _print(found, arguments)


def _unknown(topic: str, id_text: str) -> ConfigurationError:
    fix = f"an id as in `rowcast events tail {topic} --last 5`"
    return ConfigurationError(f"there is no event of {id_text!r}", where=topic, fix=fix)


def _history(log: EventLog, topic: str, id_text: str) -> list[Delivery]:
    from rowcast.event_log import partition_of

    partition = partition_of(id_text, log.partitions(topic))
    return list(log.read(log.span([partition], None, None), lambda delivery: _id_text(delivery) == id_text))


def _id_text(delivery: Delivery) -> str | None:
    return None if isinstance(delivery.content, MalformedEventError) else delivery.content.identity.id_text


def _event_id(delivery: Delivery) -> str | None:
    return None if isinstance(delivery.content, MalformedEventError) else delivery.content.id


def _version(delivery: Delivery) -> int:
    return 0 if isinstance(delivery.content, MalformedEventError) else delivery.content.version


def _print(deliveries: Iterable[Delivery], arguments: argparse.Namespace) -> int:
    from rowcast.event_text import event_document, event_line

    code = 0
    try:
        for delivery in deliveries:
            if isinstance(delivery.content, MalformedEventError):
                code = 1
            print(json.dumps(event_document(delivery)) if arguments.json else event_line(delivery), flush=True)
    except BrokenPipeError:  # `| head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _waiting(error: BrokerUnavailableError) -> None:
    print(f"rowcast: {error}; trying again", file=sys.stderr)


def _time(text: str) -> int:
    """Epoch milliseconds of a time, or of so long ago."""
    found = _DURATION.fullmatch(text)
    if found:
        return int((time.time() - int(found[1]) * _UNITS_S[found[2]]) * 1000)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no time: 90s, 15m, 2h, 7d, or RFC 3339 such as 2026-03-02T07:15:00Z"
        raise argparse.ArgumentTypeError(message) from error
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted: 1 to 1000000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
