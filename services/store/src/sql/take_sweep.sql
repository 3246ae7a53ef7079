-- Takes a snapshot that is to be swept and that no living processor sweeps. Called by processors. Index: snapshots_unswept.
update snapshots set taken_until = now() + interval '10 seconds'
where (provider, snapshot) = (
  select provider, snapshot from snapshots
  where state = 'sweeping' and taken_until < now()
  order by begun
  limit 1
  for update skip locked
)
returning provider, snapshot, begun, swept_at, swept_through
