"""The text of a drafted source file: YAML, with a comment for everything that it does not carry. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

import yaml

from rowcast.draft.link import Link
from rowcast.draft.outline import AggregateDraft, Outline

_WIDTH = 118
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")


def source_text(source: str, database: str, outline: Outline) -> str:
    """The source file of *outline*."""
    lines = [
        *_comment(
            "Drafted by `rowcast init` from what the database says; yours from here on. What could not be carried"
            " stands as a comment with the reason. Fields: docs/reference/source-file.md of Rowcast."
        ),
        f"source: {_scalar(source)}",
        f"database: {_scalar(database)}",
        "aggregates:",
    ]
    for aggregate in outline.aggregates:
        lines += _aggregate(aggregate)
    if outline.left_out:
        lines += ["", "# Left out:"]
        for table, reason in outline.left_out.items():
            lines += _comment(f"{_shown(table)}: {reason}", hang="    ")
    return "\n".join(lines) + "\n"


def _aggregate(aggregate: AggregateDraft) -> Iterator[str]:
    yield f"  {_scalar(aggregate.name)}:"
    yield f"    table: {_scalar(aggregate.table.name)}"
    yield f"    id: {_scalars(aggregate.table.id_columns)}"
    if aggregate.link is not None:
        yield f"    {_parent(aggregate.link)}"
    for note in aggregate.notes:
        yield from _comment(note, indent="    ", hang="  ")
    if aggregate.candidates:
        yield "    # One of these, with the same hierarchy in x-ancestors of the contract:"
        yield from (f"    # {_printable(_parent(link))}" for link in aggregate.candidates)


def _parent(link: Link) -> str:
    return f"parent: {{aggregate: {_scalar(link.aggregate)}, column: {_scalars(link.columns)}}}"


def _comment(text: str, indent: str = "", hang: str = "") -> list[str]:
    return textwrap.wrap(
        _printable(text),
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# {hang}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    # A line feed in a name would end the comment.
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _shown(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else repr(name)


def _scalars(texts: Sequence[str]) -> str:
    return _scalar(texts[0]) if len(texts) == 1 else f"[{', '.join(map(_scalar, texts))}]"


def _scalar(text: str) -> str:
    """*text* as YAML that is read as this text, also inside brackets."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    quoted: str = yaml.dump(text, default_style='"', allow_unicode=True, width=1_000_000)
    return quoted.rstrip("\n")
