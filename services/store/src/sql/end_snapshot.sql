-- Notes the event that ends a snapshot; gives the revision of the one that did. Called by the processor. Below the floor it has no effect.
insert into snapshots (provider, snapshot, begun, ended, count)
select $1, $2, $3, $3, $4 where $3 > (select revision from floor)
on conflict (provider, snapshot) do update set
  begun = case when snapshots.ended is null and snapshots.state = 'open' then least(snapshots.begun, excluded.begun) else snapshots.begun end,
  count = case when snapshots.ended is null then excluded.count else snapshots.count end,
  ended = coalesce(snapshots.ended, excluded.ended)
returning ended
