-- Where the change log ended when the capture of the source was set up anew, connector and slot: behind it stands
-- one snapshot, and none that nobody asked for. null: set up before this was noted.
ALTER TABLE rowcast.source ADD COLUMN snapshot_from bigint;
