-- Gives back what a reader took and did not read. Called when it stops. What another holds is taken again when the lease is over.
with held as (
  select reads.entity_id, reads.source
  from unnest($1::bigint[], $2::text[], $3::bigint[]) as named (entity_id, source, lease)
  join reads on reads.entity_id = named.entity_id and reads.source = named.source and reads.lease = named.lease
  for update of reads skip locked
)
update reads set leased_until = null from held where reads.entity_id = held.entity_id and reads.source = held.source
