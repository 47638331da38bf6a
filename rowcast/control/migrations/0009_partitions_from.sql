-- The partitions of the captured tables when the capture of the source was set up anew, as heartbeats tell of them: what
-- comes or goes while the first snapshot is read shows against it. null: set up before this was noted.
ALTER TABLE rowcast.source ADD COLUMN partitions_from text;
