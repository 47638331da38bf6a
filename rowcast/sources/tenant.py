"""
Tenants: tables of the same shape in a schema for each tenant, declared once with ``{tenant}`` in the schema's name.

``{tenant}_inventory.item`` stands for the table ``item`` of every schema whose name ends with ``_inventory``; what is
in the place of ``{tenant}`` is the tenant. It goes into identities as it is, so it has no character that would have to
be encoded there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TENANT = "{tenant}"
# What row images hold the tenant as. No column that is captured has this name.
TENANT_COLUMN = TENANT
_TENANT_TEXT = "[A-Za-z0-9_-]+"
_NAME = "[A-Za-z_][A-Za-z0-9_$]{0,62}"
_SCHEMA_PART = "[A-Za-z0-9_$]{0,62}"
TABLE_NAME = re.compile(rf"{_NAME}\.{_NAME}")
TABLE_OR_PATTERN = re.compile(rf"(?:{_NAME}|{_SCHEMA_PART}\{{tenant\}}{_SCHEMA_PART})\.{_NAME}")


def is_pattern(table: str) -> bool:
    """Whether the declared *table* stands for one of each tenant."""
    return TENANT in table


@dataclass(frozen=True, slots=True)
class TenantPattern:
    """The declared name of a table of each tenant: *before* and *after* stand around the tenant in its schema."""

    before: str
    after: str
    table: str

    @classmethod
    def read(cls, name: str) -> TenantPattern:
        """The pattern that the declared *name* is."""
        schema, table = name.split(".")
        before, after = schema.split(TENANT)
        return cls(before, after, table)

    @property
    def schema_expression(self) -> str:
        """The regular expression of its schemas, whole, as PostgreSQL, Java and Python have it."""
        return f"^{re.escape(self.before)}{_TENANT_TEXT}{re.escape(self.after)}$"

    @property
    def expression(self) -> str:
        """The regular expression of its tables, ``schema.table``, without anchors."""
        return rf"{re.escape(self.before)}{_TENANT_TEXT}{re.escape(self.after)}\.{re.escape(self.table)}"

    def tenant_of(self, table: str) -> str | None:
        """The tenant whose table *table* (``schema.table``) is; None where it is none of these."""
        schema, _, name = table.rpartition(".")
        if name != self.table or not re.fullmatch(self.schema_expression[1:-1], schema):
            return None
        return schema[len(self.before) : len(schema) - len(self.after)]

    def table_of(self, tenant: str) -> str:
        """The table of *tenant*, ``schema.table``."""
        return f"{self.before}{tenant}{self.after}.{self.table}"

    def may_meet(self, other: TenantPattern) -> bool:
        """Whether there can be a table that both stand for."""
        return (
            self.table == other.table
            and (self.before.startswith(other.before) or other.before.startswith(self.before))
            and (self.after.endswith(other.after) or other.after.endswith(self.after))
        )


def meeting(tables: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of declared *tables* that may both stand for one of the database."""
    names = list(dict.fromkeys(tables))
    for place, name in enumerate(names):
        if not is_pattern(name):
            continue
        pattern = TenantPattern.read(name)
        for number, other in enumerate(names):
            if is_pattern(other):
                if number > place and pattern.may_meet(TenantPattern.read(other)):
                    yield name, other
            elif pattern.tenant_of(other) is not None:
                yield name, other


def is_tenant(text: str) -> bool:
    """Whether a tenant may be called *text*."""
    return re.fullmatch(_TENANT_TEXT, text) is not None


class TableNames:
    """Declared tables, found by what the database calls them."""

    def __init__(self, declared: Iterable[str]) -> None:
        declared = tuple(declared)
        self._found: dict[str, tuple[str, str | None] | None] = {
            name: (name, None) for name in declared if not is_pattern(name)
        }
        self._patterns = {name: TenantPattern.read(name) for name in declared if is_pattern(name)}

    @property
    def has_patterns(self) -> bool:
        """Whether any is of tenants."""
        return bool(self._patterns)

    def find(self, table: str) -> tuple[str, str | None] | None:
        """The declared name of *table* and its tenant, if it has one; None where nothing declares it."""
        if table in self._found:
            return self._found[table]
        found = next(
            ((name, tenant) for name, each in self._patterns.items() if (tenant := each.tenant_of(table)) is not None),
            None,
        )
        self._found[table] = found
        return found

    def __contains__(self, table: object) -> bool:
        return isinstance(table, str) and self.find(table) is not None
