-- Gives new refs a number and a stitch state, and gives the numbers of those that it was. Called before the processor's commit, as a
-- transaction of its own. Index: entities(ref). Inserts only, in ref order, so that two of these wait for each other in one direction.
-- Not waiting for the disk: what builds on these rows is committed later, and with it they are on disk.
with relaxed as (
  select set_config('synchronous_commit', 'off', true)
), added as (
  insert into entities (ref)
  select wanted.ref from relaxed, unnest($1::text[]) as wanted (ref) order by wanted.ref
  on conflict (ref) do nothing
  returning ref, id
), states as (
  insert into stitch_states (entity_id) select id from added order by id
)
select ref, id from added
