"""Which transactions the campaign holds for such that the connector has left changes of out."""

from __future__ import annotations

from changelog import ChangeLog

from campaign.connector_loss import left_out
from campaign.oracle import Commit
from campaign.rows import RowChange


def committed(xid: int, count: int, *, hidden: bool = False) -> Commit:
    """A transaction that inserted *count* rows."""
    changes = [RowChange("instance", None, {"id": f"i{number}"}) for number in range(count)]
    return Commit(xid, 0, 0.0, changes, hidden=hidden)


def test_a_transaction_with_fewer_changes_than_were_committed() -> None:
    """Sent twice, or without END, or hidden from the log, it tells nothing."""
    log = ChangeLog()
    rows = [("c", "instance", None, {"id": f"i{number}"}) for number in range(3)]
    log.transaction([("m", "rowcast.context", b"{}", None), *rows])
    xid, (begin, *sent, end) = log.xid, log.values
    assert left_out([begin, *sent, end], [committed(xid, 3)]) == []
    assert left_out([begin, *sent[:3], end], [committed(xid, 3)]) == [xid]
    assert left_out([begin, *sent[:3], *sent[:3], end], [committed(xid, 3)]) == [xid]
    assert left_out([begin, *sent[:3]], [committed(xid, 3)]) == []
    assert left_out([begin, *sent[:3], end], [committed(xid, 3, hidden=True)]) == []
    assert left_out([b"null", begin, *sent, end], [committed(xid, 3), committed(xid + 1, 5)]) == []


def test_a_truncate_counts_for_any_number_of_rows() -> None:
    """It is one record."""
    log = ChangeLog()
    log.transaction([("t", "instance", None, None)])
    assert left_out(log.values, [committed(log.xid, 4)]) == []
