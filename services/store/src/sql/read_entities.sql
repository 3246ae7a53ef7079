-- What is shown of each entity: who won, the winner's content, and the entities that emit it under the winner's location key. Called by the
-- stitcher after its locks. Indexes: primary keys. An entity that no other emits costs one look into the claims' index for its parents.
select entities.id, entities.ref, entities.born, entities.revision, contents.body, contents.error::text, entities.orphan_since is not null,
       (select array_agg(substr(emits.source, 8) order by emits.source)
        from claims emits
        join claims shown on shown.entity_id = emits.entity_id and shown.source = entities.winner
        where emits.entity_id = entities.id and emits.source like 'entity:%' and emits.present and not emits.released
          and emits.location_key is not distinct from shown.location_key)
from entities
left join contents on contents.entity_id = entities.id and contents.source = entities.winner
where entities.id = any($1::bigint[])
