-- Locks stitch states that another stitcher held a moment ago, waiting for it. Called by the stitcher in a transaction of its own,
-- which holds no others. Index: primary key. Lock order: entity_id.
select entity_id, pg_current_snapshot()::text, version, sequence, hash, seen,
       (extract(epoch from not_before - clock_timestamp()) * 1000)::bigint
from stitch_states
where entity_id = any($1::bigint[])
order by entity_id
for update
