-- What a parent emits now, in ref order, from a ref on. Called by the commit of a read and by removals.
-- Index: claims_of_parents.
select entities.ref
from claims
join entities on entities.id = claims.entity_id
where claims.source = $1 and claims.source like 'entity:%' and claims.present and not claims.released and entities.ref > $2
order by entities.ref
limit $3
