-- Stitch states, without a lock. Called by the operator's verify, which writes nothing. Index: primary key.
select entity_id, pg_current_snapshot()::text, version, sequence, hash, seen,
       (extract(epoch from not_before - clock_timestamp()) * 1000)::bigint
from stitch_states
where entity_id = any($1::bigint[])
order by entity_id
