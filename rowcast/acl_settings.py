"""The section ``acl`` of the settings: who logs in to Kafka as what, and what Kafka Connect calls its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rowcast.errors import ConfigurationError

WHERE = "rowcast.toml: acl"
_TEXTS = {
    "apply": "User:rowcast",
    "worker": "User:rowcast-worker",
    "connect": "User:connect",
    "connect_group": "connect-cluster",
}
_TOPICS = ("connect-configs", "connect-offsets", "connect-status")
NAMES = (*_TEXTS, "connect_topics", "consumers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerAccess:
    """A consumer's *principal*, and the *events* that it reads; None: those of its parts in ``consumers/``."""

    principal: str
    events: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AclSettings:
    """
    The principals of `apply` and the commands, of workers, of Connect and of consumers by name.

    *connect_group* is Connect's ``group.id``, *connect_topics* are those of its configurations, offsets and status.
    """

    apply: str = _TEXTS["apply"]
    worker: str = _TEXTS["worker"]
    connect: str = _TEXTS["connect"]
    connect_group: str = _TEXTS["connect_group"]
    connect_topics: tuple[str, ...] = _TOPICS
    consumers: Mapping[str, ConsumerAccess] = field(default_factory=dict)


def read_acl(section: Any) -> AclSettings:
    """
    The settings of a *section*.

    Raises:
        ConfigurationError: it says something unknown or unusable.

    """
    if not isinstance(section, dict):
        raise ConfigurationError("not a section", where=WHERE, fix='[acl]\\nworker = "User:rowcast-worker"')
    for name in section:
        if name not in NAMES:
            raise ConfigurationError(f"unknown name {name!r}", where=WHERE, fix="known: " + ", ".join(sorted(NAMES)))
    texts = {name: _text(section[name], f"{WHERE}.{name}") for name in _TEXTS if name in section}
    topics = _texts(section.get("connect_topics", list(_TOPICS)), f"{WHERE}.connect_topics")
    consumers = section.get("consumers", {})
    if not isinstance(consumers, dict):
        raise ConfigurationError("not a section", where=f"{WHERE}.consumers", fix='orders = "User:orders"')
    read = {name: _consumer(entry, f"{WHERE}.consumers.{name}") for name, entry in consumers.items()}
    return AclSettings(**texts, connect_topics=topics, consumers=read)


def _consumer(entry: Any, where: str) -> ConsumerAccess:
    if not isinstance(entry, dict):
        return ConsumerAccess(principal=_principal(entry, where))
    if "principal" not in entry or entry.keys() - {"principal", "events"}:
        fix = '{principal = "User:orders", events = ["shop.order.v1"]}'
        raise ConfigurationError("needs a principal, and may have events", where=where, fix=fix)
    events = _texts(entry["events"], f"{where}.events") if "events" in entry else None
    return ConsumerAccess(principal=_principal(entry["principal"], where), events=events)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigurationError("not a list of texts", where=where, fix='["…"]')
    return tuple(_text(each, where) for each in value)


def _text(value: Any, where: str) -> str:
    if where.endswith((".apply", ".worker", ".connect")):
        return _principal(value, where)
    if not isinstance(value, str) or not value:
        raise ConfigurationError("not a text", where=where, fix='"…"')
    return value


def _principal(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.partition(":")[2] or "\\n" in value:
        raise ConfigurationError("not a principal", where=where, fix="User:name, or User:CN=… with client certificates")
    return value
