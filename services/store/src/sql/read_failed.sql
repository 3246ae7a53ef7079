-- Entities whose newest content failed. Called by the operator. Index: contents_failed.
select entities.ref, contents.source, contents.body is not null as shown, contents.error::text as error
from contents
join entities on entities.id = contents.entity_id
where contents.error is not null and entities.ref > $1
order by entities.ref, contents.source
limit $2
