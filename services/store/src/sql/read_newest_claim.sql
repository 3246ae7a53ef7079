-- The newest event of a source on an entity. Called where a dead letter is replayed. Indexes: entities(ref), claims' primary key.
select claims.newest
from entities
join claims on claims.entity_id = entities.id
where entities.ref = $1 and claims.source = $2
