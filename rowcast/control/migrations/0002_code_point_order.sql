-- Identifiers in code-point order, whatever the database's own order is: chunks go out in this order, and
-- comparing bytes costs a fraction of comparing by the rules of a language.
ALTER TABLE rowcast.row_state
    ALTER COLUMN source TYPE text COLLATE "C",
    ALTER COLUMN table_name TYPE text COLLATE "C",
    ALTER COLUMN row_key TYPE text COLLATE "C";
ALTER TABLE rowcast.aggregate
    ALTER COLUMN source TYPE text COLLATE "C",
    ALTER COLUMN aggregate TYPE text COLLATE "C",
    ALTER COLUMN id_text TYPE text COLLATE "C",
    ALTER COLUMN parent_id_text TYPE text COLLATE "C";
ALTER TABLE rowcast.pending
    ALTER COLUMN source TYPE text COLLATE "C",
    ALTER COLUMN id_text TYPE text COLLATE "C";
ALTER TABLE rowcast.staged_change
    ALTER COLUMN source TYPE text COLLATE "C",
    ALTER COLUMN aggregate TYPE text COLLATE "C",
    ALTER COLUMN id_text TYPE text COLLATE "C";
