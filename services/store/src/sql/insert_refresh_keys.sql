-- Writes the refresh keys of a claim. Called by the commit of a read. Index: primary key.
insert into refresh_keys (key, entity_id, source)
select key, $1, $2 from unnest($3::text[]) as named (key) order by key
on conflict do nothing
