-- Entities of which something is or should be in the entity stream, from one on. Called by the rebuild, the checker and the operator's verify.
-- Indexes: primary keys.
select stitch_states.entity_id, entities.ref, stitch_states.version, stitch_states.hash,
       stitch_states.version = 0 and stitch_states.seen is null as never_stitched
from stitch_states
join entities on entities.id = stitch_states.entity_id
where stitch_states.entity_id > $1 and (stitch_states.version > 0 or entities.winner is not null)
order by stitch_states.entity_id
limit $2
