-- Moves a snapshot on from one of some states. Called by processors and the operator; of several one does it. Index: primary key.
update snapshots set
  state = $4,
  reason = $5,
  swept_at = coalesce($6, swept_at),
  closed_at = case when $4 in ('open', 'sweeping') then null else now() end
where provider = $1 and snapshot = $2 and state = any($3::text[])
