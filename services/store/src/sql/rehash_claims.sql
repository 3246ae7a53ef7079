-- Notes under which pipeline claims are processed now: their hashes name it. Called by the walk; the entities are locked. Index: primary key.
update claims set hash = given.now
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as given (entity_id, source, before, now)
where claims.entity_id = given.entity_id and claims.source = given.source and claims.hash = given.before
