-- Forgets claims withdrawn below the floor of a minute ago. Called by the scheduler. Index: claims_withdrawn.
-- Takes the entity's lock like every other writer; what is locked now is forgotten later. So is a claim whose events are not folded
-- while another claim that stands has such events too: since when the entity is present is seen from both, until its next event folds them.
with gone as (
  select claims.entity_id, claims.source
  from claims
  join entities on entities.id = claims.entity_id
  where not claims.present and claims.newest <= least(
    (select forget_through from floor),
    (select min(begun) - 1 from snapshots where state in ('open', 'sweeping'))
  )
  and (claims.fold -> 'heads' is null or not exists (
    select from claims as standing
    where standing.entity_id = claims.entity_id and standing.present and standing.fold -> 'heads' is not null
  ))
  order by entities.ref
  limit $1
  for update of entities, claims skip locked
)
delete from claims using gone
where claims.entity_id = gone.entity_id and claims.source = gone.source and not claims.present
