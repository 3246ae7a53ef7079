-- Makes claims due that are shown from now on and may have children to emit; they are read in full. Called by the processor's commit;
-- the entities are locked. Index: primary key.
update reads set notes = null, lane = 'fresh', asked = greatest(asked, $3), asked_at = clock_timestamp(), due_at = clock_timestamp()
from unnest($1::bigint[], $2::text[]) as wanted (entity_id, source)
where reads.entity_id = wanted.entity_id and reads.source = wanted.source
