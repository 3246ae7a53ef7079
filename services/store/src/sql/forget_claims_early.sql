-- A planted bug: withdrawn claims are forgotten above the floor. Called by the scheduler in a build with planted bugs.
with gone as (
  select claims.entity_id, claims.source
  from claims
  join entities on entities.id = claims.entity_id
  where not claims.present
  order by entities.ref
  limit $1
  for update of entities, claims skip locked
)
delete from claims using gone
where claims.entity_id = gone.entity_id and claims.source = gone.source and not claims.present
