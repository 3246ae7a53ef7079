-- Forgets snapshots that are over for a week, with their parts. Called by the scheduler.
with gone as (
  delete from snapshots where closed_at < now() - interval '7 days' and state in ('done', 'discarded', 'timed_out')
  returning provider, snapshot
)
delete from snapshot_parts using gone
where snapshot_parts.provider = gone.provider and snapshot_parts.snapshot = gone.snapshot
