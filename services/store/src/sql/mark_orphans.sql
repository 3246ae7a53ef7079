-- Marks entities as orphans, or not any more. Called by removals; the entities are locked. Index: primary key.
update entities set orphan_since = case when $2 then coalesce(orphan_since, clock_timestamp()) end
where id = any($1::bigint[]) and (orphan_since is not null) <> $2
returning id
