-- Entities that a snapshot may have left out, in the order of their numbers: its source has claimed them before it began, or said something after its
-- end. Called by the processor that sweeps it. Index: claims_pkey, read through once a snapshot.
select entities.id, entities.ref
from claims
join entities on entities.id = claims.entity_id
where claims.source = $1 and claims.entity_id > $2 and ((claims.present and claims.newest < $3) or claims.newest > $4)
order by claims.entity_id
limit $5
