-- A planted bug: the entities of a batch are locked against their order. Called by the processor's commit in a build with planted bugs.
select id, ref, settled_born, born, winner, revision, emitted, orphan_since is not null
from entities
where ref = any($1::text[])
order by ref desc
for update
