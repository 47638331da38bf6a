-- Rows of the source database as a resync of this generation read them, where they differ from row state. columns as
-- row_state has them; null: the database has no such row; empty, until all is read: the row is as row state has it.
CREATE TABLE rowcast.reread_row (
    source      text COLLATE "C" NOT NULL,
    generation  bigint NOT NULL,
    table_name  text COLLATE "C" NOT NULL,
    row_key     text COLLATE "C" NOT NULL,
    columns     text,
    PRIMARY KEY (source, generation, table_name, row_key)
);

-- What the stream has deleted since that generation began: what was read of these rows is out of date. row_key null:
-- all rows of the table, by TRUNCATE. Until the rows read are applied or given up.
CREATE TABLE rowcast.deleted_row (
    source      text COLLATE "C" NOT NULL,
    generation  bigint NOT NULL,
    table_name  text COLLATE "C" NOT NULL,
    row_key     text COLLATE "C"
);
CREATE INDEX deleted_row_key ON rowcast.deleted_row (source, generation, table_name, row_key);
