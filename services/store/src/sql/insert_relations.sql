-- Adds what entities say of others. Called by the processor's commit; their entities are locked.
insert into relations (originator_id, subject_id, type, target_ref)
select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])
