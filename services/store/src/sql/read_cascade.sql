-- Removals that are on their way, the oldest first. Called by processors.
select cascade.entity_id, entities.ref, cascade.step, cascade.revision
from cascade
join entities on entities.id = cascade.entity_id
order by cascade.revision, cascade.entity_id
limit $1
