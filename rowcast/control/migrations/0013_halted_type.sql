-- Aggregate types of which nothing goes out, while the others of their source go on: because tables of the type cause are
-- not as they were applied. That is the type itself, or one above it. Until a resync has read the tables of cause anew.
CREATE TABLE rowcast.halted_type (
    source      text COLLATE "C" NOT NULL,
    aggregate   text COLLATE "C" NOT NULL,
    cause       text COLLATE "C" NOT NULL,
    code        text NOT NULL,
    message     text NOT NULL,
    mended      text NOT NULL,                      -- what somebody has to do first
    tables      text NOT NULL,                      -- JSON: those that are not as they were; of cause alone
    since       timestamptz NOT NULL,               -- commit time of what shows it
    PRIMARY KEY (source, aggregate, cause)
);

-- A recovery of halted types takes other steps than one of a stopped source.
ALTER TABLE rowcast.recovery ADD COLUMN halted boolean NOT NULL DEFAULT false;
