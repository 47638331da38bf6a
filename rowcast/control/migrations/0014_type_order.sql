-- By which numbers pending aggregates and stated events call their types: the names as a JSON array, in the order of the
-- numbers. Null: a version that did not note it was here last.
ALTER TABLE rowcast.source ADD COLUMN ranked text;
