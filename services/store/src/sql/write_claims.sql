-- Writes claims as they are folded anew. Called by the processor's commit; the entities are locked. Index: primary key.
insert into claims (entity_id, source, newest, present, location_key, hash, fold, released)
select entity_id, source, newest, present, location_key, hash, fold::json, released
from unnest($1::bigint[], $2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::boolean[])
  as written (entity_id, source, newest, present, location_key, hash, fold, released)
on conflict (entity_id, source) do update set
  newest = excluded.newest,
  present = excluded.present,
  location_key = excluded.location_key,
  hash = excluded.hash,
  fold = excluded.fold,
  released = excluded.released
