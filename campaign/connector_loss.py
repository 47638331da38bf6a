"""
What the connector leaves out of the change log, and calls it a whole transaction.

Debezium 3.7.0 does so now and then when it is started again. Rowcast cannot find what never came, and has to stop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import orjson

from campaign.oracle import Commit

_MESSAGE = "m"
_TRUNCATE = "t"  # one record, of any number of rows


def left_out(values: Iterable[bytes], commits: Iterable[Commit]) -> list[int]:
    """The transactions of *commits* that have their END among the records of the change log, and too few changes."""
    sent, ended = defaultdict[int, set[tuple[str, int, bytes]]](set), set[int]()
    for each in values:
        value = orjson.loads(each)
        if not isinstance(value, dict):
            continue
        if value.get("status") == "END":
            ended.add(int(value["id"].partition(":")[0]))
        elif (transaction := value.get("transaction")) and value["op"] != _MESSAGE:
            # Sent once more, a change has the same LSN and may have another number.
            row = value["op"], value["source"]["lsn"], orjson.dumps((value.get("before"), value.get("after")))
            sent[int(transaction["id"].partition(":")[0])].add(row)
    truncating = {xid for xid, rows in sent.items() if any(row[0] == _TRUNCATE for row in rows)}
    judged = (each for each in commits if each.xid in ended - truncating and not each.hidden)
    return [each.xid for each in judged if len(sent[each.xid]) < len(each.changes)]
