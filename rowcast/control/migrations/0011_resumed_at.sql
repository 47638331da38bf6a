-- When the source was resumed after its last stop: what the change log tells from before it is known to who resumed it.
ALTER TABLE rowcast.source ADD COLUMN resumed_at timestamptz;
