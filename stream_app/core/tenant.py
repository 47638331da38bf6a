"""Changes of tenants' tables, as those of the declared table with the tenant among the columns of each row."""

from __future__ import annotations

from collections.abc import Iterable

from rowcast.sources.tenant import TENANT_COLUMN, TableNames, TenantPattern
from stream_app.core.change import Columns, Operation, RowChange


def of_tenant(tables: TableNames, change: RowChange) -> RowChange:
    """*change* under the declared name of its table; as it is where that has no tenants, or nothing declares it."""
    declared, tenant = tables.find(change.table) or (change.table, None)
    if tenant is None:
        return change
    if change.operation is Operation.TRUNCATE:
        return change._replace(table=declared, tenant=tenant)
    return change._replace(table=declared, before=_with(change.before, tenant), after=_with(change.after, tenant))


def tables_of_tenants(changes: Iterable[RowChange]) -> frozenset[str]:
    """The tables of tenants, by the names that the database has for them, of which there are rows among *changes*."""
    found = {(row.table, row.after[TENANT_COLUMN]) for row in changes if row.after and TENANT_COLUMN in row.after}
    return frozenset(TenantPattern.read(table).table_of(tenant) for table, tenant in found)


def _with(image: Columns | None, tenant: str) -> Columns | None:
    return None if image is None else {TENANT_COLUMN: tenant, **image}


def tenant_of_row(change: RowChange) -> str | None:
    """Whose row, or rows, *change* is of; None where its table has no tenants."""
    image = change.after if change.after is not None else change.before
    return change.tenant if image is None else image.get(TENANT_COLUMN)
