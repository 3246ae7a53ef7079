-- Makes claims due whose new content needs outside reads. Called by the processor's commit; the entities are locked.
-- Index: primary key. They are read in full, and whoever reads the content before holds them no more.
insert into reads (entity_id, source, hash, asked, lane, due_at)
select entity_id, source, hash, asked, $5, clock_timestamp()
from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) as written (entity_id, source, hash, asked)
order by entity_id, source
on conflict (entity_id, source) do update set
  notes = null,
  hash = excluded.hash,
  asked = greatest(reads.asked, excluded.asked),
  asked_at = clock_timestamp(),
  lane = excluded.lane,
  due_at = excluded.due_at,
  failures = 0,
  lease = reads.lease + 1,
  leased_until = null
