-- The control database of Rowcast: ownership, position, state and refusals of every source.
-- Published for ever: later changes are numbered forward migrations.

-- One row a source. holder/epoch/lease_until: who owns it. The position columns move together, by
-- compare-and-set on (epoch, next_offset), in the transaction that writes rows and aggregates.
CREATE TABLE rowcast.source (
    source              text PRIMARY KEY,
    definition          text NOT NULL,              -- canonical JSON, as applied
    revision            text NOT NULL,              -- SHA-256 of definition
    applied_at          timestamptz NOT NULL DEFAULT now(),
    removed             boolean NOT NULL DEFAULT false,

    holder              text,
    epoch               bigint NOT NULL DEFAULT 0,
    lease_until         timestamptz,

    status              text NOT NULL DEFAULT 'running',   -- running | stopped
    stopped_code        text,
    stopped_detail      text,
    stopped_remedy      text,
    stopped_since       timestamptz,

    position_epoch      bigint,                     -- the epoch that wrote the position
    change_log_topic_id text,
    next_offset         bigint,                     -- behind the last finished unit; null: nothing read yet
    commit_lsn          bigint,                     -- of the last finished transaction
    sub_position        text,                       -- JSON: a unit that is being emitted in chunks
    position_revision   text,                       -- definition + code that wrote the position
    end_offsets         text,                       -- JSON: {"topic": {"partition": end offset}}
    schema_fingerprint  text,
    heartbeat           text,                       -- JSON: the last heartbeat's content
    position_at         timestamptz,

    failed_offset       bigint,                     -- tries of an unexpected error at one offset
    failed_tries        integer NOT NULL DEFAULT 0,
    failed_detail       text
);

-- Transactions of the re-send window: what Debezium may deliver again after a restart. One row a batch;
-- entries are triples (commit LSN, xid, change count).
CREATE TABLE rowcast.processed_transaction (
    source      text NOT NULL,
    last_lsn    bigint NOT NULL,
    last_time_ms bigint NOT NULL,                   -- commit time of the newest transaction of the batch
    entries     bigint[] NOT NULL,
    PRIMARY KEY (source, last_lsn)
);

-- The last known columns of every captured row; row_key is the id text of the primary key.
CREATE TABLE rowcast.row_state (
    source      text NOT NULL,
    table_name  text NOT NULL,
    row_key     text NOT NULL,
    columns     text NOT NULL,                      -- JSON as Debezium encodes each column
    generation  bigint NOT NULL,                    -- last generation that saw the row
    PRIMARY KEY (source, table_name, row_key)
);

-- One row for each aggregate that ever had an event or has rows. published is the state that the last
-- event carried ({"after": …, "ancestors": …}), null when there was none or it was `deleted`.
CREATE TABLE rowcast.aggregate (
    source          text NOT NULL,
    aggregate       text NOT NULL,
    id_text         text NOT NULL,
    version         bigint NOT NULL DEFAULT 0,
    parent_id_text  text,                           -- of the current row; null: no parent or no row
    present         boolean NOT NULL,               -- the root row exists
    published       text,
    refused_reason  text,
    refused_record  text,
    refused_since   timestamptz,
    refused_lsn     bigint,
    PRIMARY KEY (source, aggregate, id_text)
);
CREATE INDEX aggregate_children ON rowcast.aggregate (source, aggregate, parent_id_text)
    WHERE parent_id_text IS NOT NULL;
CREATE INDEX aggregate_refused ON rowcast.aggregate (source) WHERE refused_reason IS NOT NULL;

-- A snapshot or resync of one aggregate type. Rows are read while it is `reading`, events go out while it
-- is `emitting`.
CREATE TABLE rowcast.generation (
    source        text NOT NULL,
    aggregate     text NOT NULL,
    generation    bigint NOT NULL,
    status        text NOT NULL,                    -- reading | emitting | complete | abandoned
    started_offset bigint NOT NULL,
    lsn           bigint NOT NULL,                  -- of its first row: the position of its events
    time          text NOT NULL,                    -- of its first row: the time of its events
    PRIMARY KEY (source, aggregate, generation)
);

-- Aggregates that a unit still has to emit in chunks, in order (rank of the type, id).
CREATE TABLE rowcast.pending (
    source      text NOT NULL,
    rank        integer NOT NULL,
    id_text     text NOT NULL,
    PRIMARY KEY (source, rank, id_text)
);

-- Changes of a transaction that is too large for memory, until its END was checked and they are folded into
-- row state. Read again from the change log after any crash, so it needs no WAL.
CREATE UNLOGGED TABLE rowcast.staged_change (
    source      text NOT NULL,
    ord         bigint NOT NULL,                    -- total_order inside the transaction
    aggregate   text NOT NULL,
    id_text     text NOT NULL,                      -- empty for TRUNCATE
    operation   text NOT NULL,                      -- c | u | d | t
    columns     text,                               -- JSON; null for d and t
    PRIMARY KEY (source, ord)
);
CREATE INDEX staged_change_key ON rowcast.staged_change (source, aggregate, id_text, ord);

-- What operators ask for; the owner of the source executes it.
CREATE TABLE rowcast.command (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       text NOT NULL,
    verb         text NOT NULL,                     -- retry | resume
    arguments    text NOT NULL,                     -- JSON
    asked_by     text NOT NULL,
    asked_at     timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,
    outcome      text
);
CREATE INDEX command_open ON rowcast.command (source, number) WHERE done_at IS NULL;
