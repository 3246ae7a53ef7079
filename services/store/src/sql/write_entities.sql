-- Writes who is shown, and since when. Called by the processor's commit; the entities are locked. Index: primary key.
update entities set
  born = written.born,
  settled_born = written.settled_born,
  winner = written.winner,
  revision = written.revision
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[]) as written (id, born, settled_born, winner, revision)
where entities.id = written.id
