"""Defects of single tables, told by table, so that no more than the types that are made of it has to be halted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rowcast.errors import StopError
from stream_app.core.change import RowChange
from stream_app.core.tenant import tenant_of_row


class Defect(NamedTuple):
    """
    What is not as it was applied: the *code* of the stop, what, and how it is *mended*; empty: nothing has to be.

    *table*: the only one that it concerns; None: all that is captured. With *tenant* that table of
    this one alone. *lossless*: no change is missing because of it.
    """

    code: str
    message: str
    mended: str
    table: str | None = None
    lossless: bool = False
    tenant: str | None = None


class TableDefectError(StopError):
    """*defects*, each of one table. Where the types of these cannot be halted alone, it stops the source."""

    def __init__(self, source: str, defects: Sequence[Defect]) -> None:
        self.defects = tuple(defects)
        first = defects[0]
        again = "resume" if first.lossless else "resnapshot"
        command = f"rowcast sources {again} {source}" + " --yes" * (again == "resnapshot")
        remedy = f"{first.mended}; then {command}" if first.mended else command
        super().__init__(first.code, "; ".join(each.message for each in defects), remedy=remedy)


def without_id(source: str, row: RowChange, error: Exception) -> TableDefectError:
    """*row* belongs to no aggregate that could be refused alone: *error* says why."""
    mended, table = "check the table's replica identity and ids", row.table
    message = f"{table} at LSN {row.lsn}: {error}"
    tenant = tenant_of_row(row)
    if tenant is not None:
        message = f"tenant {tenant}: {message}"
    return TableDefectError(source, [Defect("ROW_WITHOUT_ID", message, mended, table, True, tenant)])
