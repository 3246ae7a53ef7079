-- Gives back what a reader took and did not read. Called when it stops, and when what it read is outdated or cannot be stored. Lock order: primary key; holds no others.
with held as (
  select reads.entity_id, reads.source
  from unnest($1::bigint[], $2::text[], $3::bigint[]) as named (entity_id, source, lease)
  join reads on reads.entity_id = named.entity_id and reads.source = named.source and reads.lease = named.lease
  order by reads.entity_id, reads.source
  for update of reads
)
update reads set leased_until = null from held where reads.entity_id = held.entity_id and reads.source = held.source
