-- Locks the stitch states of a batch in order; what another stitcher holds is left out, and what was stitched since it was asked for.
-- Called first by the stitcher. $2: the newest transaction that asks for each. Every transaction below a snapshot's first part is in it, so
-- those rows need no lock. Index: primary key. Lock order: entity_id. The second column: every transaction in it is visible to later statements.
select stitch_states.entity_id, pg_current_snapshot()::text, version, sequence, hash, seen,
       (extract(epoch from not_before - clock_timestamp()) * 1000)::bigint
from unnest($1::bigint[], $2::bigint[]) as wanted (entity_id, asked)
join stitch_states on stitch_states.entity_id = wanted.entity_id
where seen is null or split_part(seen, ':', 1)::bigint <= wanted.asked
order by stitch_states.entity_id
for update of stitch_states skip locked
