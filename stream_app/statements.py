"""The SQL by which the owner of a source reads and writes its state in the control database."""

from __future__ import annotations

# Ways to execute a query that are for whole tables, and off for everything else.
BULK_METHODS = ("enable_seqscan", "enable_bitmapscan", "enable_material", "enable_hashjoin", "enable_mergejoin")
WHOLE_TABLES = "; ".join(("SET LOCAL statement_timeout = 0", *(f"SET LOCAL {each} = on" for each in BULK_METHODS)))
# Of one type at a time, and of what is there only; id texts hold no line ends, see rowcast/identity.py.
# OFFSET 0 keeps the planner, which knows nothing of tables that were empty a moment ago, from turning the join round.
LOAD_AGGREGATES = """
SELECT w.id_text, a.* FROM unnest(string_to_array(%s::text, E'\\n')) AS w(id_text)
CROSS JOIN LATERAL (
    SELECT version, parent_id_text, present, published, refused_reason, refused_record, refused_since, refused_lsn,
           majors
    FROM rowcast.aggregate WHERE source = %s AND aggregate = %s AND id_text = w.id_text OFFSET 0) AS a
"""
LOAD_ROWS = """
SELECT w.row_key, r.columns FROM unnest(string_to_array(%s::text, E'\\n')) AS w(row_key)
CROSS JOIN LATERAL (
    SELECT columns FROM rowcast.row_state WHERE source = %s AND table_name = %s AND row_key = w.row_key OFFSET 0) AS r
"""
CHILDREN = """
SELECT w.parent, a.id_text FROM unnest(string_to_array(%s::text, E'\\n')) AS w(parent)
CROSS JOIN LATERAL (SELECT id_text FROM rowcast.aggregate
                    WHERE source = %s AND aggregate = %s AND parent_id_text = w.parent LIMIT %s) AS a LIMIT %s
"""
LINKED_CHILDREN = """
SELECT w.parent, i.columns::json ->> 'child' FROM unnest(string_to_array(%s::text, E'\\n')) AS w(parent)
CROSS JOIN LATERAL (SELECT columns FROM rowcast.row_state
                    WHERE source = %s AND table_name = %s AND owner = w.parent LIMIT %s) AS i LIMIT %s
"""
# Of types whose rows are tied to their aggregates by a holding.
LOAD_HELD = """
SELECT w.id_text, r.* FROM unnest(string_to_array(%s::text, E'\\n')) AS w(id_text)
CROSS JOIN LATERAL (
    SELECT row_key, columns FROM rowcast.row_state
    WHERE source = %s AND table_name = %s AND owner = w.id_text OFFSET 0) AS r
"""
LOAD_OWNERS = """
SELECT w.row_key, r.* FROM unnest(string_to_array(%s::text, E'\\n')) AS w(row_key)
CROSS JOIN LATERAL (
    SELECT columns, owner FROM rowcast.row_state
    WHERE source = %s AND table_name = %s AND row_key = w.row_key OFFSET 0) AS r
"""
COPY_ROWS = "COPY rowcast.row_state (source, table_name, row_key, columns, generation, owner) FROM STDIN"
# Updates go through temporary tables, because COPY takes a fraction of the time of array parameters.
CHANGED = """
CREATE TEMPORARY TABLE IF NOT EXISTS changed_row (
    table_name text COLLATE "C", row_key text COLLATE "C", columns text, generation bigint, owner text COLLATE "C"
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS changed_aggregate (
    aggregate text COLLATE "C", id_text text COLLATE "C", version bigint, parent_id_text text COLLATE "C",
    present boolean, published text, refused_reason text, refused_record text, refused_since timestamptz,
    refused_lsn bigint, majors text
) ON COMMIT DELETE ROWS
"""
COPY_CHANGED_ROWS = "COPY pg_temp.changed_row FROM STDIN"
# Never a join, for the same reason: each row finds the one that it replaces by its key.
_PUT_ROWS = """
INSERT INTO rowcast.row_state (source, table_name, row_key, columns, generation, owner)
SELECT %s, * FROM """
_OVER_ROWS = """
ON CONFLICT (source, table_name, row_key) DO UPDATE SET
    columns = excluded.columns, generation = excluded.generation, owner = excluded.owner
"""
UPDATE_ROWS = f"{_PUT_ROWS}pg_temp.changed_row{_OVER_ROWS}"
# A few rows go in one statement, as arrays: each COPY waits for the server twice.
INSERT_FEW_ROWS = f"{_PUT_ROWS}unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::text[])"
UPDATE_FEW_ROWS = f"{INSERT_FEW_ROWS}{_OVER_ROWS}"
DELETE_ROWS = """
DELETE FROM rowcast.row_state WHERE ctid = ANY (ARRAY(
    SELECT r.ctid FROM unnest(%s::text[], %s::text[]) AS w(table_name, row_key) CROSS JOIN LATERAL (
        SELECT ctid FROM rowcast.row_state
        WHERE source = %s AND table_name = w.table_name AND row_key = w.row_key OFFSET 0) AS r))
"""
NOTE_DELETED = """
INSERT INTO rowcast.deleted_row (source, generation, table_name, row_key)
SELECT %s, %s, * FROM unnest(%s::text[], %s::text[])
"""
COPY_AGGREGATES = """
COPY rowcast.aggregate (source, aggregate, id_text, version, parent_id_text, present, published,
                        refused_reason, refused_record, refused_since, refused_lsn, majors) FROM STDIN
"""
COPY_CHANGED_AGGREGATES = "COPY pg_temp.changed_aggregate FROM STDIN"
_PUT_AGGREGATES = """
INSERT INTO rowcast.aggregate (source, aggregate, id_text, version, parent_id_text, present, published,
                               refused_reason, refused_record, refused_since, refused_lsn, majors)
SELECT %s, * FROM """
_OVER_AGGREGATES = """
ON CONFLICT (source, aggregate, id_text) DO UPDATE SET
    version = excluded.version, parent_id_text = excluded.parent_id_text, present = excluded.present,
    published = excluded.published, refused_reason = excluded.refused_reason,
    refused_record = excluded.refused_record, refused_since = excluded.refused_since,
    refused_lsn = excluded.refused_lsn, majors = excluded.majors
"""
UPDATE_AGGREGATES = f"{_PUT_AGGREGATES}pg_temp.changed_aggregate{_OVER_AGGREGATES}"
INSERT_FEW_AGGREGATES = (
    f"{_PUT_AGGREGATES}unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::boolean[], %b::text[],"
    " %b::text[], %b::text[], %b::text[]::timestamptz[], %b::bigint[], %b::text[])"
)
UPDATE_FEW_AGGREGATES = f"{INSERT_FEW_AGGREGATES}{_OVER_AGGREGATES}"
# Another row may hold the aggregate still. The rows that go are seen here, too: none of them has this generation.
HELD_NO_MORE = (
    " AND a.id_text = gone.owner AND NOT EXISTS (SELECT 1 FROM rowcast.row_state r WHERE r.source = %(source)s"
    " AND r.table_name = %(table)s AND r.owner = gone.owner AND r.generation >= %(generation)s)"
)
ADVANCE = """
UPDATE rowcast.source SET
    position_epoch = epoch, change_log_topic_id = %(topic_id)s, next_offset = %(next_offset)s,
    commit_lsn = %(commit_lsn)s, sub_position = %(sub_position)s, position_revision = %(revision)s,
    end_offsets = %(end_offsets)s, schema_fingerprint = %(fingerprint)s,
    heartbeat = CASE WHEN %(same_heartbeat)s THEN heartbeat ELSE %(heartbeat)s END,
    position_at = clock_timestamp(),
    lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => %(lease_s)s)),
    failed_tries = CASE WHEN next_offset = %(next_offset)s THEN failed_tries ELSE 0 END,
    failed_offset = CASE WHEN next_offset = %(next_offset)s THEN failed_offset END
WHERE source = %(source)s AND epoch = %(epoch)s AND holder = %(holder)s
  AND next_offset IS NOT DISTINCT FROM %(expected_offset)s
  AND sub_position IS NOT DISTINCT FROM %(expected_sub)s
"""
# Whose tenant is the parameter, if it is not null; behind "/" comes "0", and keys stand in code-point order.
OF_TENANT = "(%(tenant)s::text IS NULL OR ({0} > %(tenant)s || '/' AND {0} < %(tenant)s || '0'))"
# Rows of a link table that are gone, with their entries in the index; see stream_app/core/link.py. The rows that go are
# seen in the second half, too: none of them has this generation.
FORGET_LINKS = f"""
WITH gone AS (
    DELETE FROM rowcast.row_state WHERE source = %(source)s AND table_name = %(table)s
    AND (%(generation)s::bigint IS NULL OR generation < %(generation)s) AND {OF_TENANT.format("row_key")}
    RETURNING row_key, owner
), entries AS (
    DELETE FROM rowcast.row_state r USING gone
    WHERE r.source = %(source)s AND r.table_name = %(index)s AND r.row_key = gone.row_key
)
UPDATE rowcast.aggregate a SET parent_id_text = (
    SELECT string_agg(DISTINCT i.owner, '|' ORDER BY i.owner) FROM rowcast.row_state l JOIN rowcast.row_state i
    ON i.source = l.source AND i.table_name = %(index)s AND i.row_key = l.row_key
    WHERE l.source = %(source)s AND l.table_name = %(table)s AND l.owner = a.id_text
    AND l.generation >= %(generation)s::bigint)
FROM (SELECT DISTINCT owner FROM gone) g
WHERE a.source = %(source)s AND a.aggregate = %(aggregate)s AND a.id_text = g.owner
"""
PENDING_LINKED = """
INSERT INTO rowcast.pending (source, rank, id_text)
SELECT DISTINCT p.source, %s::integer, i.columns::json ->> 'child'
FROM rowcast.pending p JOIN rowcast.row_state i
ON i.source = p.source AND i.table_name = %s AND i.owner = p.id_text
WHERE p.source = %s AND p.rank = %s ON CONFLICT DO NOTHING
"""
# A row of the former live majors says so from now on: null stands for those that are live.
OWE = """
UPDATE rowcast.aggregate SET majors = %(majors)s
WHERE source = %(source)s AND aggregate = %(aggregate)s AND majors IS NULL AND version > 0
"""
OPEN_MAJORS = """
UPDATE rowcast.source SET
    live_majors = %(live)s, opening = %(opening)s, end_offsets = %(end_offsets)s,
    lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => %(lease_s)s))
WHERE source = %(source)s AND epoch = %(epoch)s AND holder = %(holder)s
"""
