-- The inbox of a service: what each of its consumers has applied, and where it reads on.
-- Published for ever: later changes are numbered forward migrations.

-- The highest version that a consumer has applied of an aggregate. identity is source/aggregate/id.
-- Whoever applies, parks, retries or skips an event of the aggregate locks this row first.
CREATE TABLE rowcast_inbox.mark (
    consumer    text NOT NULL,
    identity    text NOT NULL,
    version     bigint NOT NULL,
    PRIMARY KEY (consumer, identity)
) WITH (fillfactor = 80);

-- The read position of each partition. generation is raised by every assignment and every rewind; each batch
-- compares (generation, next_offset) and moves next_offset in the transaction of its effects.
CREATE TABLE rowcast_inbox.offset_position (
    consumer    text NOT NULL,
    topic       text NOT NULL,
    partition   integer NOT NULL,
    generation  bigint NOT NULL,
    next_offset bigint NOT NULL,                    -- the first offset not yet read; markers are passed too
    topic_id    text,                               -- the topic's own id: another one is another topic
    instance    text,                               -- who raised the generation last
    assigned_at timestamptz NOT NULL DEFAULT now(),
    stored_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50);
