-- In which majors an aggregate's latest version went out, newest first ("2,1"), while that is not all that are live;
-- null: all. published has the form of the newest of them.
ALTER TABLE rowcast.aggregate ADD COLUMN majors text;
-- live_majors: what null stands for, JSON {"item": [2, 1]}. opening: the types whose every aggregate waits for its event
-- in newly live majors, and the origin of these events; null: none waits.
ALTER TABLE rowcast.source ADD COLUMN live_majors text, ADD COLUMN opening text;
UPDATE rowcast.source SET live_majors = (
    SELECT json_object_agg(a ->> 'name', json_build_array((a ->> 'major')::integer))::text
    FROM json_array_elements(definition::json -> 'aggregates') AS a
) WHERE next_offset IS NOT NULL;
