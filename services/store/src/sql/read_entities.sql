-- What is shown of each entity: who won, and the winner's content. Called by the stitcher after its locks. Indexes: primary keys.
select entities.id, entities.ref, entities.born, entities.revision, contents.body, contents.error::text, entities.orphan_since is not null
from entities
left join contents on contents.entity_id = entities.id and contents.source = entities.winner
where entities.id = any($1::bigint[])
