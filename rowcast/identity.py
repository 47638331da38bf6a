"""
The identity of an aggregate, and its one canonical text.

Everything that names an aggregate uses this text: record key, ``ce_subject``, ``ce_id``, inbox mark and
control rows. It is published for ever, so it is injective: two identities never share a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

# RFC 3986 unreserved characters without "~", which stands for the empty text (an empty record key
# would be sent to a random partition by some clients).
_SAFE = "-._"
_EMPTY = "~"


_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


def stands_for_itself(text: str) -> bool:
    """Whether *text* is sure to be its own encoding as a part of an id; told of numbers and UUIDs."""
    # The regular expression takes ten times as long.
    return text.isascii() and text.replace("-", "0").isalnum()


def _is_plain(text: str) -> bool:
    return stands_for_itself(text) or _PLAIN.fullmatch(text) is not None


def _encode(part: str) -> str:
    if _is_plain(part):
        return part
    # quote() never encodes "~"; it has to be, because a lone "~" means "empty".
    return quote(part, safe=_SAFE).replace("~", "%7E") if part else _EMPTY


def _decode(text: str) -> str:
    return "" if text == _EMPTY else unquote(text, errors="strict")


def join_id_parts(parts: Sequence[str]) -> str:
    """The id text of an aggregate without tenant."""
    return _encode(parts[0]) if len(parts) == 1 else ",".join(map(_encode, parts))


def with_tenant(tenant: str, id_text: str) -> str:
    """The id text of an aggregate of *tenant*, whose id text without it is *id_text*."""
    return f"{_encode(tenant)}/{id_text}"


def tenant_of(id_text: str) -> str | None:
    """The tenant in an id text as it is encoded there; None where it has none."""
    tenant, slash, _ = id_text.partition("/")
    return tenant if slash else None


def event_id_prefix(aggregate: str) -> str:
    """What ``ce_id`` begins with for every aggregate of the type; id text, a colon and the version follow."""
    return f"{_encode(aggregate)}:"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """
    Who an aggregate is: *source*, *aggregate* type, the *parts* of its id, and a *tenant* or none.

    Parts are the key columns in declared order, as text. A composite id keeps its parts apart.
    """

    source: str
    aggregate: str
    parts: tuple[str, ...]
    tenant: str | None = None

    @property
    def id_text(self) -> str:
        """The record key and ``ce_subject``: ``[tenant/]part[,part …]``, each percent-encoded (RFC 3986)."""
        text = join_id_parts(self.parts)
        return text if self.tenant is None else with_tenant(self.tenant, text)

    @property
    def text(self) -> str:
        """The whole identity, as inbox marks hold it: ``source/aggregate/id_text``."""
        return f"{_encode(self.source)}/{_encode(self.aggregate)}/{self.id_text}"

    def event_id(self, version: int) -> str:
        """``ce_id`` of the event that carries *version*: ``<aggregate>:<id_text>:<version>``."""
        return f"{event_id_prefix(self.aggregate)}{self.id_text}:{version}"

    @classmethod
    def from_id_text(cls, source: str, aggregate: str, id_text: str) -> Identity:
        """
        The identity whose ``id_text`` is *id_text*.

        Raises:
            ValueError: *id_text* is not in canonical form.

        """
        if _is_plain(id_text):
            return cls(source, aggregate, (id_text,))
        tenant_text, slash, parts_text = id_text.rpartition("/")
        identity = cls(
            source,
            aggregate,
            tuple(map(_decode, parts_text.split(","))),
            _decode(tenant_text) if slash else None,
        )
        if identity.id_text != id_text:
            raise ValueError(f"not a canonical id text: {id_text!r}")
        return identity
