"""
What a draft is made of: every table that a login can see, with comments, foreign keys and lists of values. Reads only.

What `rowcast.sources.catalogue` knows of a table is not repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from rowcast.draft.value_list import read_value_list

# Schemas of the server, and the one in which the connector counts its heartbeats.
_FOREIGN_SCHEMAS = ["information_schema", "rowcast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """*columns* hold values of the *target_columns* of the table *target*, ``schema.table``."""

    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTable:
    """
    A table, view or foreign table; partitions are not listed, their root is.

    *extension* is the one that it belongs to, or empty. *labels* are those of enumerations, by column, also of arrays
    of them; *values* are the only ones that a CHECK allows.
    """

    schema: str
    table: str
    comment: str
    extension: str
    foreign_keys: tuple[ForeignKey, ...] = ()
    comments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``schema.table``."""
        return f"{self.schema}.{self.table}"


def list_tables(connection: psycopg.Connection[Any]) -> tuple[ListedTable, ...]:
    """Every table of the database that is neither the server's own nor a partition, by schema and name."""
    with connection.cursor(row_factory=dict_row) as cursor:
        relations = cursor.execute(_RELATIONS, {"foreign": _FOREIGN_SCHEMAS}).fetchall()
        oids = {"oids": [relation["oid"] for relation in relations]}
        columns = _by_table(cursor.execute(_COLUMNS, oids).fetchall())
        keys = _by_table(cursor.execute(_FOREIGN_KEYS, oids).fetchall())
        checks = _by_table(cursor.execute(_CHECKS, oids).fetchall())
    return tuple(
        _listed(relation, *(found.get(relation["oid"], []) for found in (columns, keys, checks)))
        for relation in relations
    )


_Rows = list[dict[str, Any]]


def _by_table(rows: _Rows) -> dict[int, _Rows]:
    found: dict[int, _Rows] = {}
    for row in rows:
        found.setdefault(row["oid"], []).append(row)
    return found


def _listed(relation: dict[str, Any], columns: _Rows, keys: _Rows, checks: _Rows) -> ListedTable:
    return ListedTable(
        schema=relation["schema"],
        table=relation["table"],
        comment=relation["comment"] or "",
        extension=relation["extension"] or "",
        # A constraint may be declared twice.
        foreign_keys=tuple(
            dict.fromkeys(
                ForeignKey(columns=tuple(row["columns"]), target=row["target"], target_columns=tuple(row["targets"]))
                for row in keys
            )
        ),
        comments={row["name"]: row["comment"] for row in columns if row["comment"]},
        labels={row["name"]: tuple(row["labels"]) for row in columns if row["labels"]},
        values=_values(checks),
    )


def _values(checks: _Rows) -> dict[str, tuple[str | int, ...]]:
    """The values that every plain list of a column allows; columns without one are not there."""
    allowed: dict[str, tuple[str | int, ...]] = {}
    for row in checks:
        values = read_value_list(row["definition"], row["column"])
        if values is not None:
            former = allowed.get(row["column"], values)
            allowed[row["column"]] = tuple(value for value in former if value in values)
    return {column: values for column, values in allowed.items() if values}


_RELATIONS = """
SELECT c.oid, n.nspname AS schema, c.relname AS table, obj_description(c.oid, 'pg_class') AS comment,
       (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
           AND d.refclassid = 'pg_extension'::regclass LIMIT 1) AS extension
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
   AND n.nspname !~ '^pg_' AND n.nspname <> ALL (%(foreign)s)
 ORDER BY n.nspname, c.relname
"""

# A domain's type is the one under it; an array's labels are those of its elements.
_COLUMNS = """
WITH RECURSIVE resolved AS (
    SELECT attrelid, attnum, attname, atttypid AS type FROM pg_attribute
     WHERE attrelid = ANY (%(oids)s) AND attnum > 0 AND NOT attisdropped
  UNION ALL
    SELECT r.attrelid, r.attnum, r.attname, t.typbasetype
      FROM resolved r JOIN pg_type t ON t.oid = r.type WHERE t.typtype = 'd'
)
SELECT r.attrelid AS oid, r.attname AS name, col_description(r.attrelid, r.attnum) AS comment,
       (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_enum e
         WHERE e.enumtypid = CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE t.oid END) AS labels
  FROM resolved r JOIN pg_type t ON t.oid = r.type
 WHERE t.typtype <> 'd'
"""

# Those of partitions repeat their root's.
_FOREIGN_KEYS = """
SELECT k.conrelid AS oid, n.nspname || '.' || c.relname AS target,
       (SELECT array_agg(a.attname::text ORDER BY p.place) FROM unnest(k.conkey) WITH ORDINALITY AS p(number, place)
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.number) AS columns,
       (SELECT array_agg(a.attname::text ORDER BY p.place) FROM unnest(k.confkey) WITH ORDINALITY AS p(number, place)
          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = p.number) AS targets
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND k.conrelid = ANY (%(oids)s) AND k.conparentid = 0
 ORDER BY k.conname
"""

# Only what every row fulfils, and where equal means the same characters.
_CHECKS = """
SELECT k.conrelid AS oid, a.attname AS column, pg_get_constraintdef(k.oid) AS definition
  FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
 WHERE k.contype = 'c' AND k.conrelid = ANY (%(oids)s) AND k.convalidated AND cardinality(k.conkey) = 1
   AND a.atttypid = ANY (ARRAY['text', 'varchar', 'int2', 'int4', 'int8']::regtype[])
   AND (l.oid IS NULL OR l.collisdeterministic)
 ORDER BY k.conname
"""
