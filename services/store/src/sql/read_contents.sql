-- Good contents of some claims: of those that take over. Called by the processor's commit. Index: primary key.
select contents.entity_id, contents.body
from unnest($1::bigint[], $2::text[]) as wanted (entity_id, source)
join contents on contents.entity_id = wanted.entity_id and contents.source = wanted.source
