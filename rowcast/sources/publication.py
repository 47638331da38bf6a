"""The publication of a source as it stands in the database, and what its tables lack in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

OPERATIONS = "insert, update, delete, truncate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """
    A publication. *everything*: it names whole schemas or all tables; *operations*: it publishes all four;
    *via_root*: rows of partitions come under the name of their partitioned table. *tables* are those that it
    names, each with its published columns: none of them where rows are left out, None where all are published.
    """

    name: str
    everything: bool
    operations: bool
    via_root: bool
    tables: Mapping[str, frozenset[str] | None]

    def shortfalls(self, tables: Mapping[str, frozenset[str] | None]) -> Iterator[str]:
        """What keeps changes of *tables*, each with its needed columns (None: all), out of the WAL's stream."""
        if not self.operations:
            yield f"does not publish every operation ({OPERATIONS})"
        if not self.via_root:
            yield "does not publish through partitioned tables (publish_via_partition_root)"
        if self.everything:
            return
        left_out = [table for table in tables if table not in self.tables]
        if left_out:
            yield "does not publish " + ", ".join(left_out)
        partial = [
            table
            for table, columns in tables.items()
            if (published := self.tables.get(table)) is not None and not (columns is not None and columns <= published)
        ]
        if partial:
            yield "publishes only some rows or columns of " + ", ".join(partial)


def read_publication(connection: psycopg.Connection[Any], name: str) -> Publication | None:
    """The publication called *name*; None when there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_PUBLICATION, (name,)).fetchone()
    if found is None:
        return None
    oid = found.pop("oid")
    if found.pop("has_schemas") and not found["everything"]:
        found["everything"] = connection.execute(_SCHEMAS, (oid,)).fetchone() is not None
    tables = {
        str(name): None if whole else frozenset(columns or ())
        for name, whole, columns in connection.execute(_TABLES, (oid,))
    }
    return Publication(name=name, tables=tables, **found)


_PUBLICATION = """
SELECT oid, puballtables AS everything, pubinsert AND pubupdate AND pubdelete AND pubtruncate AS operations,
       pubviaroot AS via_root, EXISTS (SELECT 1 FROM pg_class WHERE relname = 'pg_publication_namespace') AS has_schemas
  FROM pg_publication WHERE pubname = %s
"""

_SCHEMAS = "SELECT 1 FROM pg_publication_namespace WHERE pnpubid = %s"  # not before PostgreSQL 15

_TABLES = """
SELECT n.nspname || '.' || c.relname,
       -- row filters and column lists are younger than PostgreSQL 14
       to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL,
       (SELECT array_agg(a.attname::text) FROM pg_attribute a
         WHERE a.attrelid = r.prrelid AND to_jsonb(r) ->> 'prqual' IS NULL
           AND a.attnum::text = ANY (regexp_split_to_array(trim('[]' FROM to_jsonb(r) ->> 'prattrs'), '[, ]+')))
  FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE r.prpubid = %s ORDER BY 1
"""
