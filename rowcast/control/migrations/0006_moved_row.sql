-- Rows of a large transaction that got another key, and what their inserts lack in the WAL. While it is staged, lsn is 0
-- and columns are as they came. At its END they are completed from the former key's row, all at once and before anything
-- of the transaction is folded: a repetition does not find the former row any more.
CREATE TABLE rowcast.moved_row (
    source     text NOT NULL,
    lsn        bigint NOT NULL,                     -- commit LSN of the transaction
    ord        bigint NOT NULL,                     -- total_order of the insert inside it
    aggregate  text NOT NULL,
    former     text NOT NULL,                       -- row key before
    columns    text NOT NULL,                       -- JSON, as row_state has it
    PRIMARY KEY (source, lsn, ord)
);
