-- Gives new refs a number and a stitch state. Called before the processor's commit, in a transaction of its own.
-- Index: entities(ref). Inserts only, in ref order, so that two of these wait for each other in one direction.
with added as (
  insert into entities (ref)
  select wanted.ref
  from unnest($1::text[]) as wanted (ref)
  where not exists (select from entities known where known.ref = wanted.ref)
  order by wanted.ref
  on conflict (ref) do nothing
  returning id
)
insert into stitch_states (entity_id) select id from added order by id
