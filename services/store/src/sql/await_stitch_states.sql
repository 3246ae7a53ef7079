-- Locks stitch states that another stitcher held a moment ago, waiting for it; what it has stitched meanwhile is left out, as in
-- lock_stitch_states.sql. Called by the stitcher in a transaction of its own, which holds no others. Index: primary key. Lock order: entity_id.
select stitch_states.entity_id, pg_current_snapshot()::text, version, sequence, hash, seen,
       (extract(epoch from not_before - clock_timestamp()) * 1000)::bigint
from unnest($1::bigint[], $2::bigint[]) as wanted (entity_id, asked)
join stitch_states on stitch_states.entity_id = wanted.entity_id
where seen is null or split_part(seen, ':', 1)::bigint <= wanted.asked
order by stitch_states.entity_id
for update of stitch_states
