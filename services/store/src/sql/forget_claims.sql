-- Forgets claims withdrawn below the floor of a minute ago. Called by the scheduler. Index: claims_withdrawn.
-- Takes the entity's lock like every other writer; what is locked now is forgotten later.
with gone as (
  select claims.entity_id, claims.source
  from claims
  join entities on entities.id = claims.entity_id
  where not claims.present and claims.newest <= least(
    (select forget_through from floor),
    (select min(begun) - 1 from snapshots where state in ('open', 'sweeping'))
  )
  order by entities.ref
  limit $1
  for update of entities, claims skip locked
)
delete from claims using gone
where claims.entity_id = gone.entity_id and claims.source = gone.source and not claims.present
