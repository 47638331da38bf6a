-- Stated events of one transaction that wait: staged, until the END of a large one was checked; then for the chunk in
-- which the events of their aggregates go out. Only one transaction of a source has some at a time.
CREATE TABLE rowcast.statement (
    source      text COLLATE "C" NOT NULL,
    ord         bigint NOT NULL,                    -- total_order inside the transaction
    rank        integer NOT NULL,                   -- of the aggregate type; -1: it could not be told
    aggregate   text COLLATE "C" NOT NULL,
    id_text     text COLLATE "C" NOT NULL,
    event       text NOT NULL,
    data        text,                               -- canonical JSON; null: refused
    former      boolean NOT NULL,                   -- stands before the aggregate's first row in the transaction
    staged      boolean NOT NULL,
    reason      text,                               -- why it is refused
    record      text,
    PRIMARY KEY (source, ord)
);
CREATE INDEX statement_key ON rowcast.statement (source, rank, id_text, ord);

-- Stated events that never became events: kept until an operator dismisses them. Names are as far as they could be told.
CREATE TABLE rowcast.refused_statement (
    source      text COLLATE "C" NOT NULL,
    lsn         bigint NOT NULL,                    -- commit LSN; outside a transaction the message's own
    ord         bigint NOT NULL,                    -- total_order inside the transaction; 0 outside
    aggregate   text NOT NULL,
    id_text     text NOT NULL,
    event       text NOT NULL,
    reason      text NOT NULL,
    record      text NOT NULL,                      -- the message, JSON
    since       timestamptz NOT NULL,
    PRIMARY KEY (source, lsn, ord)
);
