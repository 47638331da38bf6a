"""
The statement that the connector runs each second: it says in the WAL that the source lives, and what became of it.

Whatever PostgreSQL changes without a word in the WAL shows in its catalogue alone: partitions, columns, replica
identities, the publication. Some beats tell of it, in their place among the changes; `stream_app.core.heartbeat` reads
them. Nothing of it waits for a lock on a captured table. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import orjson

from rowcast.sources.catalogue import columns_query
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.tenant import TenantPattern, is_pattern

HEARTBEAT_PREFIX = "rowcast.heartbeat"
_TELLING_BEATS = 20
# Of tenants: what is dropped is sure when two have told of it.
_TELLING_BEATS_OF_TENANTS = 10


def heartbeat_query(definition: SourceDefinition, publication: str) -> str:
    """
    One statement: count the beat in ``rowcast.heartbeat`` and say it in the WAL, in one transaction.

    The counter is dense (a sequence would skip numbers on rollback), so a missing beat is a missing record.
    """
    told = "".join(
        f", '{name}', CASE WHEN told THEN ({query}) END" for name, query in _tellings(definition, publication)
    )
    return (
        "WITH beat AS (UPDATE rowcast.heartbeat SET counter = counter + 1, at = clock_timestamp()"
        f" WHERE source = '{definition.source}' RETURNING source, counter, at)"
        f" SELECT pg_logical_emit_message(true, '{HEARTBEAT_PREFIX}', json_strip_nulls(json_build_object("
        "'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),"
        " 'timeline', ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
        """ 'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),"""
        f" 'counter', counter, 'source', source{told}))::text)"
        f" FROM (SELECT *, counter % {_telling_beats(definition)} = 1 AS told FROM beat) AS beat"
    )


def _telling_beats(definition: SourceDefinition) -> int:
    has_tenants = any(is_pattern(table.name) for table in definition.tables)
    return _TELLING_BEATS_OF_TENANTS if has_tenants else _TELLING_BEATS


def catalogue_query(definition: SourceDefinition, publication: str) -> str:
    """What heartbeats say of the catalogue, as one JSON text."""
    told = ", ".join(f"'{name}', ({query})" for name, query in _tellings(definition, publication))
    return f"SELECT json_strip_nulls(json_build_object({told}))::text"


def _tellings(definition: SourceDefinition, publication: str) -> list[tuple[str, str]]:
    # Tables of tenants are not partitioned.
    tables = [table.name for table in definition.tables if not is_pattern(table.name)]
    return [
        ("partitions", _by_table(tables, _LEAVES)),
        ("files", _by_table(tables, _FILES)),
        ("captured", _captured(definition, publication)),
    ]


# What holds the rows of a table: itself or its partitions. pg_partition_tree would wait for whoever has locked one of
# them, VACUUM FULL for example, and the connector with it.
_LEAVES_OF = (
    "WITH RECURSIVE tree (relid) AS (SELECT {0}::oid UNION ALL"
    " SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.relid)"
    " SELECT tree.relid FROM tree JOIN pg_class k ON k.oid = tree.relid AND k.relkind <> 'p'"
)
# PostgreSQL notes nowhere how a partition came. One that was created as such is in the same transaction, and hardly
# any command earlier (3 or 4 are counted on PostgreSQL 15 and 16; a table with a row that is attached has 6).
_LEAVES = (
    "json_agg(t.relid::oid::text || coalesce('@' || (SELECT max(i.xmin::text)"
    " FROM pg_partition_ancestors(t.relid) x JOIN pg_inherits i ON i.inhrelid = x.relid"
    " JOIN pg_attribute a ON a.attrelid = t.relid AND a.attname = 'ctid'"
    " WHERE age(i.xmin) < age(a.xmin) OR (i.xmin = a.xmin AND i.cmin::text::int8 - a.cmin::text::int8 > 5)), ''))"
)
# A TRUNCATE gives a table another file, and so does whatever rewrites its rows. The count of its rows tells them apart:
# a TRUNCATE leaves -1. Later counts are no news: of an index that is built, and of ANALYZE and VACUUM on PostgreSQL 14,
# where what was inserted may be told much later.
_FILES = (
    "json_object_agg(t.relid::oid::text, (SELECT concat_ws('/', pg_relation_filenode(c.oid), c.xmin,"
    " CASE WHEN EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid"
    " AND (age(x.xmin) < age(c.xmin) OR (x.xmin = c.xmin AND pg_relation_filenode(x.oid) = x.oid)))"
    " THEN -1 ELSE c.reltuples::int8 END, pg_stat_get_tuples_inserted(c.oid),"
    " CASE WHEN current_setting('server_version_num')::int >= 150000 THEN '' ELSE coalesce("
    "extract(epoch FROM greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid),"
    " pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)))::text, '') END)"
    " FROM pg_class c WHERE c.oid = t.relid))"
)


def _by_table(tables: Sequence[str], told: str) -> str:
    """
    What is *told* of the partitions that hold rows, by partitioned table; see `stream_app.core.partition`.

    Either their oids, those that were attached with ``@<transaction>``, or each one's file.
    """
    if not tables:
        return "'{}'::json"
    literal = ", ".join(map(_text, tables))
    names = ", ".join(_text(qualified(table)) for table in tables)
    return (
        "SELECT coalesce(json_object_agg(r.name, l.leaves), '{}')"
        f" FROM unnest(ARRAY[{literal}], ARRAY[{names}]) AS r (name, quoted) CROSS JOIN LATERAL ("
        f"SELECT {told} AS leaves FROM ({_LEAVES_OF.format('to_regclass(r.quoted)')}) t"
        " WHERE t.relid <> to_regclass(r.quoted)) l WHERE l.leaves IS NOT NULL"
    )


def _captured(definition: SourceDefinition, publication: str) -> str:
    """
    Whether tables and publication are as they were applied; see `stream_app.core.captured`.

    *lacks* is empty while they are. *is*, short for each table, tells one that was made anew under its name, or a
    column of it, from the former one.
    """
    applied = orjson.dumps(
        {
            table.name: {
                "key": table.key,
                "columns": {column.name: column.type for column in table.columns},
                **_tenants(table.name),
            }
            for table in definition.tables
        },
        option=orjson.OPT_SORT_KEYS,
    )
    has_tenants = any(is_pattern(table.name) for table in definition.tables)
    plain = _PLAIN | (_WITH_TENANTS if has_tenants else {})
    query = _one_line(_CAPTURED)
    for name, part in plain.items():
        query = query.replace(f"<{name}>", _one_line(part))
    return query.format(
        source=_text(definition.source),
        applied=_text(applied.decode()),
        of=_text(hashlib.sha256(applied).hexdigest()[:8]),
        publication=_text(publication),
        leaves=_LEAVES_OF.format("a.oid"),
        identity=_one_line(_IDENTITY),
        columns=_one_line(columns_query("ARRAY(SELECT oid FROM applied)")),
    )


def _tenants(name: str) -> dict[str, str]:
    """What a table of tenants is found by, and what stands for the schema in types of it."""
    if not is_pattern(name):
        return {}
    pattern = TenantPattern.read(name)
    return {"schema": pattern.schema_expression, "table": pattern.table, "types": name.partition(".")[0]}


_PLAIN = {
    "named": "SELECT w.name, w.want -> 'columns' AS columns, w.want -> 'key' AS key, c.oid",
    "table": "ON n.nspname || '.' || c.relname = w.name",
    "type": "k.type",
    "gone": """WHEN a.oid IS NULL THEN '{{"table": "gone"}}'""",
    "name": "name",
    "is": "left(md5(concat_ws(' ', oid, numbers)), 8)",
    "published": "SELECT r.prrelid AS oid,",
    "told": "FROM compared",
}
# Each table of a tenant by its own name. That it was published anew shows too, and which were published empty.
_WITH_TENANTS = {
    "named": """
SELECT CASE WHEN w.want -> 'schema' IS NULL THEN w.name ELSE n.nspname || '.' || c.relname END AS name,
       w.want -> 'columns' AS columns, w.want -> 'key' AS key, c.oid,
       w.want ->> 'types' AS types, quote_ident(n.nspname) AS schema, c.relkind AS kind""",
    "table": """
ON CASE WHEN w.want -> 'schema' IS NULL THEN n.nspname || '.' || c.relname = w.name
        ELSE c.relname = w.want ->> 'table' AND n.nspname ~ (w.want ->> 'schema')
             AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't' END
WHERE c.oid IS NOT NULL OR w.want -> 'schema' IS NULL""",
    "type": "CASE WHEN a.types IS NULL THEN k.type ELSE replace(k.type, a.schema || '.', a.types || '.') END",
    "gone": """WHEN a.oid IS NULL THEN '{{"table": "gone"}}'
               WHEN a.types IS NOT NULL AND a.kind = 'p' THEN '{{"table": "partitioned"}}'""",
    "name": "c.name",
    "is": """
left(md5(concat_ws(' ', c.oid, c.numbers, u.entry)), 8)
  || CASE WHEN EXISTS (SELECT FROM rowcast.tenant_table t
                        WHERE t.source = {source} AND t.name = c.name AND t.oid = c.oid) THEN '+' ELSE '' END""",
    "published": "SELECT r.prrelid AS oid, r.oid AS entry,",
    "told": """
FROM compared c LEFT JOIN applied a ON a.oid = c.oid LEFT JOIN published u ON u.oid = c.oid AND a.types IS NOT NULL""",
}
_CAPTURED = """
WITH applied AS MATERIALIZED (
  <named>
    FROM jsonb_each({applied}) AS w (name, want)
    LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND c.relkind IN ('r', 'p'))
      <table>
), present AS MATERIALIZED (
  SELECT a.oid, jsonb_object_agg(k.name, <type>) AS types, jsonb_object_agg(k.number, k.name) AS names,
         string_agg(k.number::text, ' ' ORDER BY k.number) AS numbers
    FROM ({columns}) k JOIN applied a ON a.oid = k.oid WHERE a.columns -> k.name IS NOT NULL GROUP BY a.oid
), publication AS MATERIALIZED (
  SELECT p.*, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AS operations
    FROM pg_publication p WHERE p.pubname = {publication}
), published AS (
  -- row filters and column lists are younger than PostgreSQL 14
  <published> regexp_split_to_array(trim('[]' FROM to_jsonb(r) ->> 'prattrs'), '[, ]+') AS numbers
    FROM pg_publication_rel r JOIN publication p ON p.oid = r.prpubid WHERE to_jsonb(r) ->> 'prqual' IS NULL
), compared AS (
  SELECT a.name, a.oid, h.numbers, CASE <gone> ELSE
    jsonb_strip_nulls(jsonb_build_object(
      'columns', (SELECT jsonb_object_agg(x.key, coalesce(h.types ->> x.key, ''))
         FROM jsonb_each_text(a.columns) x WHERE h.types ->> x.key IS DISTINCT FROM x.value),
      'identity', (SELECT string_agg(DISTINCT l.relreplident::text, '') FROM pg_class l
         WHERE l.oid IN ({leaves}) AND l.relreplident <> 'f' AND NOT coalesce(a.key <@ ({identity}), false)),
      'unpublished', CASE WHEN u.oid IS NULL AND (SELECT puballtables FROM publication) IS NOT TRUE THEN '[]' ELSE
         (SELECT jsonb_agg(x.value) FROM jsonb_each(h.names) x WHERE x.key <> ALL (u.numbers)) END)) END AS lacks
    FROM applied a LEFT JOIN present h ON h.oid = a.oid LEFT JOIN published u ON u.oid = a.oid
)
SELECT json_build_object('of', {of}, 'publication', (SELECT oid FROM publication),
  'operations', (SELECT operations FROM publication),
  'is', coalesce(json_object_agg(<name>, <is>), '{{}}'),
  'lacks', coalesce(json_object_agg(<name>, lacks) FILTER (WHERE lacks <> '{{}}'), '{{}}')) <told>
"""
_IDENTITY = """
SELECT jsonb_agg(i.attname) FROM (
  SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
   WHERE i.indrelid = l.oid AND k.place <= i.indnkeyatts AND CASE l.relreplident
     WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END) i
"""


def qualified(table: str) -> str:
    """The table ``schema.table`` as SQL has it."""
    return ".".join(map(quoted, table.split(".")))


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _one_line(query: str) -> str:
    return " ".join(re.sub(r"--.*", "", query).split())


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
