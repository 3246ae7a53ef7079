-- An entity, what emits it, what emits that, and so on: which of them a provider has, and which are orphans that were let go.
-- Called by removals. Indexes: claims primary key, entities(ref).
with recursive ancestors (id) as (
  select $1::bigint
  union
  select parents.id
  from ancestors
  join claims on claims.entity_id = ancestors.id and claims.present and not claims.released and claims.source like 'entity:%'
  join entities parents on parents.ref = substr(claims.source, 8)
)
select entities.ref,
       exists (select from claims where claims.entity_id = entities.id and claims.present and claims.source not like 'entity:%'),
       exists (select from claims where claims.entity_id = entities.id and claims.present and claims.released)
from (select id from ancestors limit $2) as found
join entities on entities.id = found.id
order by entities.ref
