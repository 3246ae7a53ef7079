-- Takes due claims of one lane for a while. Called by readers of outside sources; what another one takes is passed over.
-- Indexes: reads_due, primary keys. Holds no other lock, and waits for none.
with due as (
  select entity_id, source
  from reads
  where lane = $1 and due_at <= clock_timestamp() and (leased_until is null or leased_until < clock_timestamp())
  order by due_at
  limit $2
  for update skip locked
)
update reads set lease = reads.lease + 1, leased_until = clock_timestamp() + make_interval(secs => $3)
from due
where reads.entity_id = due.entity_id and reads.source = due.source
returning reads.entity_id, reads.source, reads.lease, reads.hash, reads.asked, reads.notes, reads.failures,
          (extract(epoch from clock_timestamp() - greatest(reads.due_at, reads.asked_at)) * 1000)::bigint
