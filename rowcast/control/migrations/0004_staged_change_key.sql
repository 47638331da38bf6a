-- Staged changes are read by aggregate alone; a second index only slowed the writing of large transactions.
ALTER TABLE rowcast.staged_change DROP CONSTRAINT staged_change_pkey;
