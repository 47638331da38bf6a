"""HTML that cannot be broken by its content: every text is escaped unless it was made here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = {"br", "input", "link", "meta"}


class Html(str):
    """Finished HTML."""

    __slots__ = ()


def tag(name: str, /, *content: str | Iterable[str], **attributes: str) -> Html:
    """The element *name*; texts of *content* and *attributes* are escaped. ``class_`` and the like lose their ``_``."""
    told = "".join(f' {each.rstrip("_").replace("_", "-")}="{escape(text)}"' for each, text in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{joined(*content)}</{name}>")


def joined(*content: str | Iterable[str]) -> Html:
    """*content* in a row: texts escaped, HTML as it is."""
    parts = (each for item in content for each in ([item] if isinstance(item, str) else item))
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))
