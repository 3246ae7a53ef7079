-- Claims that lose to another location key, with the claim that is shown. Called by the operator, a page at a time. Index: primary keys.
select claims.entity_id, entities.ref, shown.source, shown.location_key, shown.newest, claims.source, claims.location_key, claims.newest
from claims
join entities on entities.id = claims.entity_id
join claims shown on shown.entity_id = claims.entity_id and shown.source = entities.winner
where (claims.entity_id, claims.source) > ($1, $2)
  and claims.present and claims.source <> shown.source
  and shown.location_key is not null and claims.location_key is distinct from shown.location_key
order by claims.entity_id, claims.source
limit $3
