-- Which of a batch's entities are still to be stitched, as lock_stitch_states.sql selects them, without a lock. Called by the stitcher before its
-- transactions where many are asked for: mostly others have stitched the most of them by then. Index: primary key.
select stitch_states.entity_id
from unnest($1::bigint[], $2::bigint[]) as wanted (entity_id, asked)
join stitch_states on stitch_states.entity_id = wanted.entity_id
where seen is null or split_part(seen, ':', 1)::bigint <= wanted.asked
