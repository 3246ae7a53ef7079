-- What is to be read of claims that were taken: their content as it came, if they still stand with the content for which they are due.
-- Called by readers of outside sources, right after take_reads.sql. Indexes: primary keys.
select claims.entity_id, claims.source, entities.ref, contents.raw
from unnest($1::bigint[], $2::text[], $3::text[]) as taken (entity_id, source, hash)
join claims on claims.entity_id = taken.entity_id and claims.source = taken.source
join contents on contents.entity_id = taken.entity_id and contents.source = taken.source
join entities on entities.id = taken.entity_id
where claims.present and claims.hash = taken.hash and contents.raw is not null
