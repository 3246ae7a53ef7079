-- Changes the halves of contents that a batch has something new for: the good body, what the newest event brought, its error.
-- Called by the processor's commit; the entities are locked, and the rows are there. Index: primary key.
update contents set
  body = case when written.has_body then written.body else contents.body end,
  raw = case when written.has_raw then written.raw else contents.raw end,
  error = case when written.has_error then written.error::json else contents.error end
from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::text[], $6::boolean[], $7::boolean[], $8::boolean[])
  as written (entity_id, source, body, raw, error, has_body, has_raw, has_error)
where contents.entity_id = written.entity_id and contents.source = written.source
