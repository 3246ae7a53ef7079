-- Changes the halves of contents that a batch has something new for: the good body, or the failure of the newest event.
-- Called by the processor's commit; the entities are locked, and the rows are there. Index: primary key.
update contents set
  body = case when written.has_body then written.body else contents.body end,
  failed = case when written.has_failure then written.failed else contents.failed end,
  error = case when written.has_failure then written.error::json else contents.error end
from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::text[], $6::boolean[], $7::boolean[])
  as written (entity_id, source, body, failed, error, has_body, has_failure)
where contents.entity_id = written.entity_id and contents.source = written.source
