-- Which aggregate a row holds (its id text), for types whose rows are tied to their aggregates by something else
-- than the primary key, such as an id inside a document; null for all others, and for a row that holds none.
ALTER TABLE rowcast.row_state ADD COLUMN owner text COLLATE "C";
CREATE INDEX row_state_owner ON rowcast.row_state (source, table_name, owner) WHERE owner IS NOT NULL;
