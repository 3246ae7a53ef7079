-- Writes what processing gave. Called by the processor's commit; the entities are locked. Index: primary key.
insert into contents (entity_id, source, body, raw, error)
select entity_id, source, body, raw, error::json
from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::text[]) as written (entity_id, source, body, raw, error)
on conflict (entity_id, source) do update set
  body = excluded.body,
  raw = excluded.raw,
  error = excluded.error
