-- Keeps what claims say for a read that was not necessary until now. Called by the walk under another pipeline; the entities are locked. Index: primary key.
update contents set raw = given.raw
from unnest($1::bigint[], $2::text[], $3::bytea[]) as given (entity_id, source, raw)
where contents.entity_id = given.entity_id and contents.source = given.source and contents.raw is null
