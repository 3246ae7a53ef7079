-- Drops due rows of claims that stand no more, or no more with that content, with their refresh keys. Called by readers of outside sources.
-- A row that became due anew in between stays: its hash or its lease is another one. What another holds is dropped another time.
with dead as (
  select reads.entity_id, reads.source
  from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) as named (entity_id, source, hash, lease)
  join reads on reads.entity_id = named.entity_id and reads.source = named.source
    and reads.hash = named.hash and reads.lease = named.lease
  for update of reads skip locked
), gone as (
  delete from reads using dead where reads.entity_id = dead.entity_id and reads.source = dead.source
)
delete from refresh_keys using dead where refresh_keys.entity_id = dead.entity_id and refresh_keys.source = dead.source
