-- Snapshots, those that are not over first, then the newest. Called by the operator.
select snapshots.provider, snapshots.snapshot, snapshots.state, snapshots.reason, snapshots.begun, snapshots.count,
  (select coalesce(sum(parts), 0)::bigint from snapshot_parts
   where snapshot_parts.provider = snapshots.provider and snapshot_parts.snapshot = snapshots.snapshot) as parts,
  snapshots.withdrawn,
  extract(epoch from now() - snapshots.began_at)::double precision as age
from snapshots
order by snapshots.state in ('open', 'sweeping', 'held') desc, snapshots.began_at desc
limit $1
