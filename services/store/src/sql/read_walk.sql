-- The next entities of the walk, each with its claims that were not processed under the pipeline $3: what they say, as it came or as it was processed,
-- and whether that is to be read outside. An entity without such a claim has a row, too. Called by the processor. Indexes: primary keys.
select entities.id, entities.ref, claims.source, claims.hash,
  coalesce(contents.raw, contents.body), contents.raw is not null, reads.entity_id is not null
from (select id, ref from entities where id > $1 order by id limit $2) as entities
left join claims on claims.entity_id = entities.id and claims.present and right(claims.hash, length($3)) <> $3
left join contents on contents.entity_id = claims.entity_id and contents.source = claims.source
left join reads on reads.entity_id = claims.entity_id and reads.source = claims.source
order by entities.id, claims.source
