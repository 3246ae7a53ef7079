-- Writes who is shown, and since when. Called by the processor's commit; the entities are locked. Index: primary key.
update entities set
  born = written.born,
  settled_born = written.settled_born,
  winner = written.winner,
  revision = written.revision,
  orphan_since = case when written.orphan then coalesce(entities.orphan_since, clock_timestamp()) end
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::boolean[])
  as written (id, born, settled_born, winner, revision, orphan)
where entities.id = written.id
