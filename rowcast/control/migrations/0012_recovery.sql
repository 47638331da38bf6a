-- The last recovery of a source: of which code, and how many of its steps are done. Not finished: the next call goes on
-- behind them, whatever the source is stopped with meanwhile because of them.
CREATE TABLE rowcast.recovery (
    source      text COLLATE "C" PRIMARY KEY,
    code        text NOT NULL,
    steps_done  integer NOT NULL DEFAULT 0,
    asked_by    text NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
