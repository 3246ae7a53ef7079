-- Locks the stitch states of a batch in order; what another stitcher holds is left out. Called first by the stitcher.
-- Index: primary key. Lock order: entity_id. The second column: every transaction in it is visible to later statements.
select entity_id, pg_current_snapshot()::text, version, sequence, hash, seen,
       (extract(epoch from not_before - clock_timestamp()) * 1000)::bigint
from stitch_states
where entity_id = any($1::bigint[])
order by entity_id
for update skip locked
