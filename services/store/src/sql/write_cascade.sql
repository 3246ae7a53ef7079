-- Notes removals that are to go on. Called by the processor's commit.
insert into cascade (entity_id, step, revision)
select entity_id, step, $3 from unnest($1::bigint[], $2::text[]) as written (entity_id, step)
order by entity_id, step
on conflict (entity_id, step) do update set revision = least(cascade.revision, excluded.revision)
