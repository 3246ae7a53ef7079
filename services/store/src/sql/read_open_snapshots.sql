-- Snapshots that are not complete yet, or are to be swept, with what was counted of them. Called by processors. Index: snapshots_unswept.
select snapshots.provider, snapshots.snapshot, snapshots.state, snapshots.begun, snapshots.count,
  counted.parts, counted.refused,
  greatest(snapshots.ended, counted.highest) as last,
  greatest(snapshots.ended, counted.highest) <= (select revision from floor) as settled,
  extract(epoch from now() - greatest(snapshots.began_at, counted.noted_at))::double precision as idle
from snapshots, lateral (
  select coalesce(sum(parts), 0)::bigint as parts, coalesce(sum(parts) filter (where refused), 0)::bigint as refused,
    max(highest) as highest, max(noted_at) as noted_at
  from snapshot_parts
  where snapshot_parts.provider = snapshots.provider and snapshot_parts.snapshot = snapshots.snapshot
) counted
where snapshots.state in ('open', 'sweeping')
order by snapshots.begun
limit $1
