-- Counts parts of snapshots: those that a batch has merged, or refused ones, which may come again and are counted once. Called last by the processor's
-- commit, or after it. A snapshot's row is locked only by its first part and by one that is older than all before. Lock order: provider, snapshot.
with counted as (
  select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
    as counted (provider, snapshot, first, highest, parts)
  where $6 = false or first > (select revision from floor)
),
begun as (
  insert into snapshots (provider, snapshot, begun)
  select provider, snapshot, min(first)
  from counted
  where not exists (
    select from snapshots known
    where known.provider = counted.provider and known.snapshot = counted.snapshot and known.begun <= counted.first
  )
  group by provider, snapshot
  order by provider, snapshot
  on conflict (provider, snapshot) do update set begun = least(snapshots.begun, excluded.begun)
)
insert into snapshot_parts (provider, snapshot, first, highest, parts, refused)
select provider, snapshot, first, highest, parts, $6 from counted
on conflict (provider, snapshot, first) do nothing
