-- Writes how entities were stitched. Called last by the stitcher, which holds the rows. Index: primary key.
update stitch_states set
  version = written.version,
  sequence = written.sequence,
  hash = written.hash,
  seen = $5,
  not_before = clock_timestamp() + make_interval(secs => written.pause_ms / 1000.0)
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $6::bigint[]) as written (entity_id, version, sequence, hash, pause_ms)
where stitch_states.entity_id = written.entity_id
