-- Makes due what a refresh of keys names. A refresh that was taken before changes nothing.
-- Called by the processor after its commit. Indexes: refresh_keys and reads primary keys. Lock order: ref, as ask_reads.sql.
with named as (
  select distinct entity_id, source from refresh_keys where key = any($1::text[])
), locked as (
  select id from entities where id in (select entity_id from named) order by ref for update
)
update reads set lane = 'fresh', asked = $2, asked_at = clock_timestamp(), due_at = clock_timestamp()
from locked, named
where reads.entity_id = locked.id and named.entity_id = locked.id and reads.source = named.source and reads.asked < $2
