-- Locks the entities of a batch in ref order. Called first by the processor's commit, before it reads claims.
-- Index: entities(ref). Lock order: ref.
select id, ref, settled_born, born, winner, revision, emitted, orphan_since is not null
from entities
where ref = any($1::text[])
order by ref
for update
