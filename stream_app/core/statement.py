"""
Events that a service states: messages of its transaction that name an aggregate, what happened to it, and data.

What cannot be understood, or is not declared, is refused by name. Where a statement stands in the transaction, and
what the aggregate is there, is `stream_app.core.sequencing`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from rowcast.annotation import STATED_PREFIX
from rowcast.errors import MappingError
from rowcast.identity import join_id_parts
from stream_app.core.change import LooseMessage, Message
from stream_app.core.column import exact_document, id_part
from stream_app.core.mapping import SourceMapping
from stream_app.core.row_id import ID_TEXT_MAX
from stream_app.core.state import Key

_MEMBERS = ("aggregate", "id", "event", "data")
_SHOWN_MAX = 100
_RECORD_MAX = 10_000
_REASON_MAX = 2_000
_LOOSE = "it was emitted outside a transaction: pg_logical_emit_message needs true as its first argument"


class Statement(NamedTuple):
    """
    That *event* happened to the aggregate *key*, said as number *order* of a transaction; *data* is canonical JSON.

    *former*: it stands before the aggregate's first row in the transaction.
    """

    order: int
    key: Key
    event: str
    data: bytes
    former: bool = False


class RefusedStatement(NamedTuple):
    """
    A statement that is no event, and why: number *order* of the transaction with this commit *lsn* and time (*since*).

    Outside a transaction *lsn* is its own and *order* 0. *aggregate*, *id_text* and *event* are as far as they could be
    told; *record* is the message as JSON, or a text that holds it.
    """

    lsn: int
    order: int
    aggregate: str
    id_text: str
    event: str
    reason: str
    record: str
    since: str


class StatementError(MappingError):
    """A message is no statement; *told* is what of aggregate, id text and event could be told."""

    def __init__(self, reason: str, *told: str) -> None:
        super().__init__(reason)
        self.told = told


def read_statement(source: SourceMapping, message: Message) -> Statement:
    """
    What *message* states.

    Raises:
        StatementError: it is malformed, or nothing of the kind is declared.

    """
    try:
        said = exact_document(message.content)
    except MappingError as error:
        raise StatementError(str(error)) from error
    if not isinstance(said, dict):
        raise StatementError("is not a JSON object")
    aggregate, event = said.get("aggregate"), said.get("event")
    told = [each[:_SHOWN_MAX] if isinstance(each, str) else "" for each in (aggregate, "", event)]
    if missing := [name for name in _MEMBERS if name not in said]:
        raise StatementError(f"lacks {', '.join(missing)}", *told)
    if unknown := sorted(said.keys() - set(_MEMBERS)):
        raise StatementError(f"has an unknown member {unknown[0][:_SHOWN_MAX]!r}", *told)
    mapping = source.by_type.get(aggregate) if isinstance(aggregate, str) else None
    if mapping is None:
        raise StatementError(
            f"the source declares no aggregate of this name; declared: {_names(source.by_type)}", *told
        )
    try:
        told[1] = _id_text(said["id"], mapping.definition.id)
    except MappingError as error:
        raise StatementError(str(error), *told) from error
    if not isinstance(event, str) or event not in mapping.stated:
        declared = _names(mapping.stated) or "none"
        raise StatementError(f"{aggregate} declares no event of this name; declared: {declared}", *told)
    return Statement(message.order, Key(mapping.name, told[1]), event, _canonical(said["data"]))


def _names(declared: Iterable[str]) -> str:
    return ", ".join(sorted(declared))


def _id_text(value: Any, places: Sequence[str]) -> str:
    if isinstance(value, Mapping):
        if value.keys() != set(places):
            raise MappingError(f"id has other members than {', '.join(places)}")
        values = [value[place] for place in places]
    elif len(places) > 1:
        raise MappingError(f"id is not an object with {', '.join(places)}")
    else:
        values = [value]
    if not all(isinstance(each, str | int) for each in values):
        raise MappingError("id is neither text nor a whole number")
    text = join_id_parts([id_part(each) for each in values])
    if len(text) > ID_TEXT_MAX:
        raise MappingError(f"id has more than {ID_TEXT_MAX} bytes as a record key")
    return text


def _canonical(data: Any) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def statements_in(
    source: SourceMapping, messages: Iterable[Message], place: tuple[int, str], refused: list[RefusedStatement]
) -> list[Statement]:
    """What *messages* of a transaction state; those refused are added to *refused*. *place*: commit LSN and time."""
    found = []
    for message in messages:
        if message.prefix != STATED_PREFIX:
            continue
        try:
            found.append(read_statement(source, message))
        except StatementError as error:
            refused.append(refuse_message(message, error, place))
    return found


def refuse_message(message: Message, error: StatementError, place: tuple[int, str]) -> RefusedStatement:
    """The refusal of a message that is no statement."""
    aggregate, id_text, event = (*error.told, "", "", "")[:3]
    reason = _text(f"the message of the stated event {error}")
    return RefusedStatement(
        place[0], message.order, _text(aggregate), id_text, _text(event), reason, _record(message.content), place[1]
    )


def refuse_loose(message: LooseMessage, since: str) -> RefusedStatement:
    """The refusal of a stated event outside transactions, which has no place among changes."""
    return RefusedStatement(message.lsn, 0, "", "", "", _LOOSE, _record(message.content), since)


def refuse_statement(statement: Statement, reason: str, place: tuple[int, str]) -> RefusedStatement:
    """The refusal of a *statement* that cannot become an event."""
    key = statement.key
    said = b'{"aggregate":%b,"data":%b,"event":%b,"id":%b}' % (
        orjson.dumps(key.aggregate),
        statement.data,
        orjson.dumps(statement.event),
        orjson.dumps(key.id_text),
    )
    return RefusedStatement(
        place[0], statement.order, key.aggregate, key.id_text, statement.event, _text(reason), _record(said), place[1]
    )


def _text(text: str) -> str:
    # PostgreSQL's text holds no NUL.
    return text.replace("\0", "\\u0000")[:_REASON_MAX]


def _record(content: bytes) -> str:
    """The message as JSON; as a text that holds its beginning where it is none, or too long."""
    try:
        if len(content) <= _RECORD_MAX:
            return orjson.dumps(orjson.loads(content), option=orjson.OPT_SORT_KEYS).decode()
    except (ValueError, TypeError, RecursionError):
        pass
    return orjson.dumps(content[:_RECORD_MAX].decode("utf-8", "backslashreplace")).decode()
