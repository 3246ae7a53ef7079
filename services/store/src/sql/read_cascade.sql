-- Removals that are on their way, the oldest first. Called by processors. Index: entities, primary key, for each that is found.
select entity_id, (select ref from entities where entities.id = cascade.entity_id), step, revision
from cascade
order by revision, entity_id
limit $1
