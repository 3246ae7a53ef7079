-- Makes due what a refresh names: entities, with all their claims that need outside reads. A refresh that was taken before changes nothing.
-- Called by the processor after its commit. Indexes: entities(ref), reads primary key. Lock order: ref; whoever changes several due rows
-- holds their entities.
with locked as (
  select id from entities where ref = any($1::text[]) order by ref for update
)
update reads set notes = case when not $3 then notes end, lane = 'fresh', asked = $2, asked_at = clock_timestamp(), due_at = clock_timestamp()
from locked
where reads.entity_id = locked.id and reads.asked < $2
