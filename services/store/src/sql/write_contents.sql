-- Writes what processing gave. A body that is not given stays as it is. Called by the processor's commit. Index: primary key.
insert into contents (entity_id, source, body, failed, error)
select entity_id, source, body, failed, error::json
from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::text[]) as written (entity_id, source, body, failed, error)
on conflict (entity_id, source) do update set
  body = coalesce(excluded.body, contents.body),
  failed = excluded.failed,
  error = excluded.error
