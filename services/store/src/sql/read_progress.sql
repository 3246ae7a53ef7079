-- Up to which revision everything is stitched and published; how often streams were found wiped or gone back; whether the outbox has a row that
-- is published. Called by the scheduler five times a second; a handful of rows. One statement, one snapshot: an event below the floor was
-- committed before the floor was recorded, so what it asked for is seen here unless it is done.
select least(
  (select revision from floor),
  coalesce((select min(revision) - 1 from outbox), 9223372036854775807),
  coalesce((select min(revision) - 1 from cascade), 9223372036854775807),
  coalesce((select min(begun) - 1 from snapshots where state in ('open', 'sweeping')), 9223372036854775807),
  -- A half rebuilt stream has none.
  (select case when rebuild_after is null then 9223372036854775807 else -1 end from repair),
  -- Nor one that is known to have gone back.
  (select case when coalesce(max(published), 0) < 9223372036854775807 then 9223372036854775807 else -1 end from streams)
),
(select coalesce(sum(resets), 0)::bigint from streams),
exists (select from outbox where sequence is not null)
